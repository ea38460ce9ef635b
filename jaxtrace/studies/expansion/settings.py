"""Settings of the expansion study."""

from __future__ import annotations

from jaxtrace.studies._shared.settings import LayerStudyConfig


class ExpansionConfig(LayerStudyConfig):
    """Settings of `study expansion`."""
