import pytest

from jaxtrace.errors import StoreError
from jaxtrace.outputs import claim_directory, claim_file


def test_an_output_directory_in_use_is_refused(tmp_path):
    out = tmp_path / "out"

    def claim(**options):
        claim_directory(out, "page.html", ["tables", "*.png"], **options)

    def refused(problem, **options):
        with pytest.raises(StoreError, match=problem):
            claim(**options)

    claim()
    out.mkdir()
    (out / "tables").mkdir()
    (out / "a.png").write_bytes(b"")
    (out / ".page.html.tmp").write_bytes(b"")
    claim()  # empty or unfinished
    (out / "page.html").write_text("page")
    refused(r"out: holds a finished result, page\.html; replace it with --overwrite, or name another directory$")
    refused(r"page\.html; continue it with --resume, replace it with --overwrite, or name", resume=False)
    claim(resume=True)
    claim(overwrite=True)
    (out / "notes.txt").write_text("mine")
    refused(r"out: holds notes\.txt; replace it with --overwrite, or name another directory$")
    refused(r"out: holds notes\.txt; replace it", resume=True)
    claim(overwrite=True)
    out = out / "notes.txt"
    refused("notes.txt: is a file; name a directory", overwrite=True)


def test_an_output_file_in_use_is_refused(tmp_path):
    out = tmp_path / "new" / "labels.jsonl"
    claim_file(out)
    assert not out.parent.exists()
    out.parent.mkdir()
    out.touch()
    claim_file(out)
    out.write_text("labels")
    with pytest.raises(
        StoreError, match=r"labels\.jsonl: exists already; replace it with --overwrite, or name another"
    ):
        claim_file(out)
    claim_file(out, overwrite=True)
    with pytest.raises(StoreError, match="new: is a directory, which is never replaced; name another file"):
        claim_file(out.parent, overwrite=True)
