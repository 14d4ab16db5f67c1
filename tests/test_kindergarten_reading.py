"""What is read and asked about: several questions in training, one in tests."""
import pytest

from nanochat.kindergarten import check, eval_example, rl_example
from nanochat.kindergarten.skills_reading import LONGEST

SKILLS = ("reading", "sentences", "passages")


def turns(example, role):
    return [message["content"] for message in example.conversation["messages"] if message["role"] == role]


@pytest.mark.parametrize("skill", SKILLS)
def test_training_asks_several_times_about_what_it_has_read(skill):
    examples = [rl_example(number, skill=skill) for number in range(600)]
    several = [example for example in examples if len(turns(example, "user")) > 1]
    assert len(several) > 200
    for example in examples:
        assert check(example.check, turns(example, "assistant")[-1]), example
    for example in several:
        questions = turns(example, "user")
        answers = turns(example, "assistant")
        assert sum(map(len, questions + answers)) <= LONGEST
        assert len(set(map(str.lower, questions))) == len(questions)


@pytest.mark.parametrize("skill", SKILLS[:2])
def test_a_test_asks_once_about_a_passage(skill):
    for number in range(100):
        before = turns(eval_example(skill, number), "assistant")[:-1]
        assert not before or len(before) == 1 and before[0][-1] in ".!?"    # "I have read it."
