"""The task story-questions: requests about stories."""

from collections import Counter

from jaxtrace.tasks import load_task

STORY = "Lily saw a red ball. She ran to it and fell."


def test_each_story_has_24_prompts(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text(f"{STORY}<|endoftext|>Tom slept.")
    prompts = load_task("story-questions", path)
    assert len(prompts) == 48
    assert Counter(prompt.meta["kind"] for prompt in prompts) == dict.fromkeys(
        ("generative", "syntactic", "semantic"), 16
    )
    first = prompts[:24]
    assert first[0].text == f"{STORY}\n\nHow can the story be continued?\n\n"
    assert first[2].text == f"How can the story be continued?\n\n{STORY}\n\n"
    for prompt in first:
        request, story = [part for part in prompt.text.split("\n\n") if part][
            :: 1 if prompt.meta["request_first"] else -1
        ]
        assert request.endswith(("?", "."))
        assert sorted(story.split()) == sorted(STORY.split())
        assert (story != STORY) == prompt.meta["shuffled"]
    assert len({prompt.text for prompt in first}) == 24
    assert prompts == load_task("story-questions", path)


def test_long_prompts_are_excluded(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text(f"{'long ' * 300}<|endoftext|>{STORY}")
    prompts = load_task("story-questions", path, 5)
    assert [prompt.meta["story"] for prompt in prompts] == [1] * 5
    assert [prompt.id for prompt in prompts][:2] == ["story-questions-000000", "story-questions-000001"]


def test_the_published_leak_shuffles_shuffled_words_again(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text(STORY)
    plain, leaking = load_task("story-questions", path), load_task("story-questions-leak", path)
    assert [prompt.meta for prompt in plain] == [prompt.meta for prompt in leaking]
    assert plain[:4] == leaking[:4]
    stories = [next(x for x in prompt.text.split("\n\n") if "ball" in x) for prompt in leaking]
    assert stories[0] == STORY and STORY not in stories[4:]
    for before, after in zip(range(0, 20, 4), range(4, 24, 4), strict=True):
        assert stories[after] == stories[before + 1]  # marked as ordered, but in the previous request's shuffled order
    assert all(sorted(story.split()) == sorted(STORY.split()) for story in stories)
