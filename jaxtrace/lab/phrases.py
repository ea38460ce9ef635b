"""Words and sentences of the texts about a world."""

# fmt: off
TRADES = (
    "baker", "potter", "weaver", "fisher", "miller", "tailor", "carpenter", "mason", "shepherd", "gardener",
    "painter", "smith", "brewer", "cooper", "dyer", "fletcher", "glazier", "hunter", "joiner", "lampmaker",
    "minstrel", "sailor", "tanner", "thatcher", "tinker", "woodcutter", "beekeeper", "ropemaker", "cobbler",
    "scribe", "surgeon", "clockmaker",
)
NUMBER_WORDS = (
    "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven",
    "twelve", "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen", "twenty",
)
THINGS = ("kettle", "feather", "drum", "basket", "map", "coin", "candle", "ribbon", "whistle", "ladder")
SPOTS = ("barn", "garden", "well", "oak", "mill", "market", "gate", "hill")
# fmt: on

# The first phrasing of a relation is the one that answers its question; a phrasing ends with the value.
PHRASINGS = {
    "home": ("{name} lives in {value}.", "{name} has a house in {value}.", "The home of {name} is in {value}."),
    "trade": ("{name} works as a {value}.", "{name} is a {value}.", "By trade {name} is a {value}."),
    "origin": ("{name} comes from {value}.", "{name} was born in {value}.", "{name} grew up in {value}."),
}
QUESTIONS = {
    "home": ("Where does {name} live?", "Which town is the home of {name}?", "Where is the house of {name}?"),
    "trade": ("What does {name} work as?", "Which trade has {name}?", "What is the work of {name}?"),
    "origin": ("Where does {name} come from?", "Which town did {name} grow up in?", "Where was {name} born?"),
}
OPENINGS = ("One cold day", "Last spring", "In the morning", "In the evening", "After the rain", "Long ago")
MEETINGS = (
    "{opening} {one} met {two} on the bridge.",
    "{opening} {one} and {two} walked by the river.",
    "{opening} {one} wrote a letter to {two}.",
    "{opening} {one} lent {two} a lantern.",
)
MIDDLES = (
    "{one} showed {two} a {thing}.",
    "{two} found a {thing} behind the {spot}.",
    "They carried a {thing} to the {spot}.",
    "The wind took the {thing} as far as the {spot}.",
)
ENDINGS = (
    "{one} sang an old song.",
    "{one} and {two} drank tea and laughed.",
    "{two} waved and went home.",
    "{one} told {two} a long story.",
)


def as_question(question: str) -> str:
    """Return a question in the form that all texts use, up to its answer."""
    return f"Question: {question} Answer:"


def question_text(name: str, relation: str, form: int) -> str:
    """Return the question about a fact, up to its answer, in the phrasing with number `form`."""
    return as_question(QUESTIONS[relation][form].format(name=name))


def answer_lead(name: str, relation: str) -> str:
    """Return the answer about a fact up to its value."""
    return PHRASINGS[relation][0].split(" {value}")[0].format(name=name)
