"""Groups of options in `--help`, for the `json_schema_extra` of a field."""

from pydantic.config import JsonDict

MODEL: JsonDict = {"group": "Model"}
PROMPT: JsonDict = {"group": "Prompt"}
SAMPLING: JsonDict = {"group": "Sampling"}
RECORD: JsonDict = {"group": "What to record"}
OUTPUT: JsonDict = {"group": "Output"}
DEVICES: JsonDict = {"group": "Devices"}
ORDER = tuple(str(group["group"]) for group in (MODEL, PROMPT, SAMPLING, RECORD, OUTPUT, DEVICES))

ESCAPES: JsonDict = {"escapes": True}  # on the command line, \n, \t and \\ stand for a new line, a tab and a backslash
READABLE: JsonDict = {"exists": "name a file that can be read"}
TRACE: JsonDict = {"positional": "TRACE", "exists": "name the directory of a trace"}
