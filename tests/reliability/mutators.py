"""Damage to documents: bytes that are flipped, lost, doubled or hostile, and JSON values of another kind."""

import json

# Values that a JSON document does not expect: other types, ends of ranges, text that terminals and parsers act on.
NASTY_VALUES = (
    *(None, True, False, 0, 1, -1, 3, 2**31, 2**32, -(2**63), 2**64, 10**30, 0.5, -0.0, 1e-45, 1e39, 1e308),
    *(float("nan"), float("inf"), "", " ", "x", "1", "\x00", "\x1b[2J", "\ud800", "\u202e", "../../etc/passwd", "=1+1"),
    *("a" * 5000, "{{ x }}", "[red]", "float32", [], {}, [0], [[]], [None] * 40, {"a": 1}, {"": {"": {}}}),
)
# Bytes that a parser may choke on.
NASTY_BYTES = (
    *(
        b"\x00",
        b"\xff\xfe",
        b"\xef\xbb\xbf",
        b"\xed\xa0\x80",
        b"\x1b]0;x\x07",
        b"\r",
        b"\n\n",
        b'"',
        b"'",
        b"\\",
        b"\\u12",
    ),
    *(
        b"[" * 3000,
        b'{"a":' * 2000,
        b"(" * 3000,
        b"-" * 3000,
        b"9" * 5000,
        b"1e999",
        b"NaN",
        b"!!int x",
        b"&a *a",
        b"<<: *a",
    ),
    *(b"%" * 50, b"{{" * 20, b"{% for a in range(99999) %}", b"\t", b",,,,", b"||", b"</script>", b"A" * 200_000),
)


def mutated(content, chance, *, is_json=False):
    """Return the bytes of a document after one to three random changes; `chance` is a `random.Random`."""
    for _ in range(chance.choice((1, 1, 1, 2, 3))):
        change = chance.choice((_json_value, _json_value, _json_value, *BYTE_CHANGES) if is_json else BYTE_CHANGES)
        content = change(content, chance)
    return content


def flipped(content, bit):
    """Return the bytes with one bit flipped."""
    changed = bytearray(content)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


def _span(content, chance):
    start = chance.randrange(len(content) + 1)
    return start, min(len(content), start + int(2 ** chance.uniform(0, 9)))


def _flip(content, chance):
    return flipped(content, chance.randrange(8 * len(content))) if content else content


def _replace(content, chance):
    start, end = _span(content, chance)
    return content[:start] + chance.randbytes(end - start) + content[end:]


def _delete(content, chance):
    start, end = _span(content, chance)
    return content[:start] + content[end:]


def _double(content, chance):
    start, end = _span(content, chance)
    return content[:end] + content[start:end] * chance.choice((1, 1, 20)) + content[end:]


def _truncate(content, chance):
    return content[: chance.randrange(len(content) + 1)]


def _insert(content, chance):
    start, _ = _span(content, chance)
    return content[:start] + chance.choice(NASTY_BYTES) + content[start:]


def _exchange_words(content, chance):
    """Exchange two words, so that keys and values of text formats change places."""
    words = content.split(b" ")
    one, other = chance.randrange(len(words)), chance.randrange(len(words))
    words[one], words[other] = words[other], words[one]
    return b" ".join(words)


BYTE_CHANGES = (_flip, _flip, _replace, _delete, _double, _truncate, _insert, _insert, _exchange_words)


def _json_value(content, chance):
    """Change one value or key of a JSON document, or of one line of JSON lines; other bytes change bytewise."""
    lines = content.split(b"\n")
    number = None
    try:
        document = json.loads(content)
    except ValueError:
        number = chance.randrange(len(lines))
        try:
            document = json.loads(lines[number])
        except (ValueError, RecursionError):
            return _flip(content, chance)
    except RecursionError:
        return _flip(content, chance)
    places = list(_places(document))
    if not places:
        return json.dumps(chance.choice(NASTY_VALUES)).encode()
    owner, key = chance.choice(places)
    match chance.randrange(6):
        case 0:
            del owner[key]
        case 1 if isinstance(owner, dict):
            owner[str(chance.choice(NASTY_VALUES))[:300]] = owner.pop(key)
        case 2:
            other, name = chance.choice(places)
            owner[key] = other[name] if not isinstance(other[name], dict | list) else 7
        case 3 if isinstance(owner[key], int | float) and not isinstance(owner[key], bool):
            owner[key] = chance.choice((owner[key] + 1, owner[key] - 1, -owner[key], owner[key] * 1000, owner[key] / 3))
        case 4 if isinstance(owner[key], list):
            owner[key] = owner[key] * 2 if chance.random() < 0.5 else owner[key][:-1]
        case _:
            owner[key] = chance.choice(NASTY_VALUES)
    changed = json.dumps(document).encode()
    if number is None:
        return changed
    lines[number] = changed
    return b"\n".join(lines)


def _places(document, most=2000):
    """Yield (container, key) of every value of a document, up to `most`."""
    waiting = [document]
    while waiting and most:
        node = waiting.pop()
        keys = list(node) if isinstance(node, dict) else range(len(node)) if isinstance(node, list) else ()
        for key in keys:
            most -= 1
            yield node, key
            waiting.append(node[key])
