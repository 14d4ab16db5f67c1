"""What midtraining, finetuning and reinforcement learning start from: python -m pytest tests/test_finetune.py"""
import pytest

from nanochat import finetune


@pytest.mark.parametrize("data", ["kindergarten", "simplespelling"])
@pytest.mark.parametrize("count", [20, 1000])
def test_as_many_conversations_are_trained_on_as_asked_for(data, count):
    chosen, held = finetune.conversations(data, "mid", count)
    assert len(chosen) == count and len(held) == (count + finetune.VAL_CONVERSATIONS) // 20
