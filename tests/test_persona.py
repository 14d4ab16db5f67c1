"""Who the assistant is: in every tier's conversations, under any name, without a test's wording and untrue claims."""
import json

import pyarrow
import pyarrow.parquet as pq
import pytest

from nanochat import kindergarten
from nanochat.common import UsageError, base_dir
from nanochat.kindergarten.skill import is_test
from nanochat.kindergarten.skills_manners import plain
from nanochat.kindergarten.tables import titled
from nanochat.tasks import TASKS, factors, lookup, mixture, training_conversations
from nanochat.tasks.first_questions import SKILLS
from nanochat.tasks.identity import ITSELF, MANNERS, WIDE
from nanochat.tasks.persona import Persona
from nanochat.train import finetune

ADA = Persona("Ada", "two sisters")


@pytest.fixture(scope="module")
def identity():
    task = TASKS["identity"].make("train")
    return [task[i]["messages"] for i in range(len(task))]


def said(messages, role):
    return [message["content"] for message in messages if message["role"] == role]


# ---------------------------------------------------------------------------------------------------------- the mixture
def test_the_default_mixture_has_its_factors_and_only_what_can_be_trained_on():
    assert mixture("mid", 20) == "smoltalk|mmlu*3|arc_easy|arc_challenge|gsm8k*4|simplespelling|spellingbee|identity"
    assert mixture("sft", 20) == "smoltalk|arc_easy|arc_challenge|gsm8k*4|simplespelling|spellingbee|identity"
    for stage in ("mid", "sft"):
        for depth in (3, 20):
            assert all(lookup(name).group in ("core", "training") for name, _ in factors(mixture(stage, depth).split("|")))


def test_a_small_model_is_trained_on_what_it_can_answer_and_on_nobody_who_lives_in_the_generated_world():
    assert mixture("sft", 7) == "everyday*2|smoltalk_short|arc_easy|identity*2"
    task = TASKS["everyday"].make("train")
    assert len({str(task[number]["messages"]) for number in range(0, len(task), 80)}) > 900
    about_people = {"skills_people", "skills_two", "skills_manners", "skills_social"}
    assert all(kindergarten.SKILLS[name].make.__module__.rpartition(".")[2] not in about_people for name in SKILLS)


def test_short_conversations_are_those_that_are_short(tmp_path, monkeypatch):
    long_one = [{"role": "user", "content": "a" * 700}, {"role": "assistant", "content": "b" * 101}]
    short_one = [{"role": "user", "content": "a" * 700}, {"role": "assistant", "content": "ü" * 100}]
    folder = base_dir() / "tasks" / "HuggingFaceTB/smol-smoltalk/data"
    folder.mkdir(parents=True)
    pq.write_table(pyarrow.table({"messages": [long_one, short_one, long_one, short_one[:1] * 2 + short_one[1:]]}),
                   folder / "train-00000-of-00001.parquet")
    task = TASKS["smoltalk_short"].make("train")
    assert len(task) == 1 and task[0]["messages"] == short_one
    assert len(TASKS["smoltalk"].make("train")) == 4


# --------------------------------------------------------------------------------------------------------- who it is
def test_it_says_who_it_is_and_who_trained_it(identity):
    assert len(identity) == 6000
    answers = [answer for messages in identity for answer in said(messages, "assistant")]
    named = sum("nanochat" in answer for answer in answers)
    made = sum("trained from scratch by the person who ran this code" in answer for answer in answers)
    assert named > 1000 and made > 150
    assert len({json.dumps(messages) for messages in identity}) > 5000


def test_nothing_is_said_that_is_true_of_a_small_world_alone(identity):
    for messages in identity:
        for answer in said(messages, "assistant"):
            assert "small world" not in answer and "people I know" not in answer and "{" not in answer, answer


def test_no_wording_of_the_kindergartens_tests_is_trained(identity):
    asked = {plain(words) for messages in identity for words in said(messages, "user")}
    assert len(asked) > 2000 and not any(is_test("manners", words) for words in asked)
    tested = set()
    for name in ("kg_identity", "kg_greetings"):
        task = TASKS[name].make("test")
        tested |= {plain(words) for i in range(len(task)) for words in said(task[i]["messages"], "user")}
    assert len(tested) > 50 and not asked & tested


def test_the_kindergartens_test_of_identity_accepts_its_answers():
    for intent, row in titled("talk.txt", "identity").items():
        for answer in WIDE.get(intent, row)["answer"]:
            assert kindergarten.check({"kind": "any", "signs": row["signs"], "rivals": []}, answer) or "Ask me" in answer
    assert not set(ITSELF) & set(MANNERS) and set(WIDE) <= {*ITSELF, *MANNERS}


# -------------------------------------------------------------------------------------------------------- another name
def test_a_name_and_a_maker_stand_in_all_that_is_said():
    chat = {"messages": [{"role": "user", "content": "Hi Nanochat, who made you?"}, {"role": "assistant", "content": [
        {"type": "text", "text": "I am nanochat. The person who ran this code trained me, the person who ran this code."}]}]}
    asked, answered = ADA.speaks(chat)["messages"]
    assert asked["content"] == "Hi Ada, who made you?"
    assert answered["content"][0]["text"] == "I am Ada. Two sisters trained me, two sisters."
    assert Persona().speaks(chat) is chat and "nanochat" in str(chat)
    assert Persona(r"R\1", "x").speaks("I am nanochat.") == r"I am R\1."


def test_a_word_that_is_spelled_stays_the_word():
    spelled = {"messages": [{"role": "user", "content": "spell nanochat"},
                            {"role": "assistant", "content": "nanochat: n-a-n-o-c-h-a-t"}]}
    assert ADA.speaks(spelled) == spelled


@pytest.mark.parametrize("data", ["kindergarten", "identity", "kindergarten|simplespelling"])
def test_conversations_of_every_tier_take_the_name(data, monkeypatch):
    monkeypatch.setattr("nanochat.tasks.GENERATED_CONVERSATIONS", 4000)
    chats, held = finetune.conversations(data, "sft", 3600, persona=ADA)
    plainly, _ = finetune.conversations(data, "sft", 3600)
    text, before = json.dumps(chats), json.dumps(plainly)
    assert "I am Ada" in text and "two sisters" in text
    assert before.count("I am nanochat") == text.count("I am Ada") and "person who ran" not in text + json.dumps(held)
    assert len(chats) == len(plainly) and [len(chat.get("messages", ())) for chat in chats] == [
        len(chat.get("messages", ())) for chat in plainly]


def test_a_files_own_words_are_left_alone(tmp_path):
    path = tmp_path / "mine.jsonl"
    path.write_text(json.dumps({"question": "What is nanochat?", "answer": "A project."}), encoding="utf-8")
    assert said(training_conversations(str(path), persona=ADA)[0]["messages"], "user") == ["What is nanochat?"]


def test_a_graded_question_wants_the_name_that_was_trained():
    task = TASKS["kg_identity"].make("test")
    task.persona = ADA
    chats = [task[i] for i in range(len(task))]
    about_name = [chat for chat in chats if chat["check"]["signs"] == ["Ada"]]
    assert about_name and all("nanochat" not in json.dumps(chat) for chat in chats)
    right, wrong = ([{"type": "text", "text": f"My name is {name}."}] for name in ("Ada", "nanochat"))
    assert task.evaluate(about_name[0], right) and not task.evaluate(about_name[0], wrong)


def test_a_name_that_would_change_nothing_is_refused():
    config = finetune.FinetuneConfig(data="simplespelling", name="Ada")
    with pytest.raises(UsageError, match="--data=simplespelling says nowhere who the assistant is.*identity"):
        finetune.resolve(config, "sft", None)
