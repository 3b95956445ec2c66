"""A recipe's words become an algorithm; what it cannot mean is an error with the remedy."""

from pathlib import Path

import pytest

from tests.scripted import problem, rollout
from whetstone.rl import algorithms, settings
from whetstone.rl.build import build, most_rollouts
from whetstone.rl.loop import reads
from whetstone.rl.registry import ALGORITHMS, STABILISERS
from whetstone.rl.settings import Settings


def known(**more) -> Settings:
    return Settings(kind="rl", **more)


PROBLEMS = [problem(name) for name in "abcdef"]
PAPER = ["prompt_optimization", "reward_rebalancing", "temperature_annealing"]


def test_every_file_is_an_algorithm_or_a_stabiliser_that_names_its_options():
    assert set(ALGORITHMS.names) == {"grpo", "dr_grpo", "dapo", "srpo", "rloo", "reinforce_pp", "gspo", "cispo", "ppo"}
    assert set(STABILISERS.names) == {*PAPER, "clip_cov", "kl_cov"}
    for folder in (ALGORITHMS, STABILISERS):
        for name, options in folder.options().items():
            assert callable(folder.function_of(name)) and issubclass(options, folder.parent)


@pytest.mark.parametrize("name", ALGORITHMS.names)
def test_naming_an_algorithm_is_enough_and_its_module_names_its_paper(name):
    algorithm = build(known(algorithm=name, prompts_per_step=4, samples=3), PROBLEMS, 0)
    draw = algorithm.draw({}, 0, [])
    assert len(draw.problems) == 4 and draw.counts == [3] * 4
    assert algorithm.reward(problem(), rollout(tokens=1)) == 1.0
    text = Path(algorithms.__file__).with_name(f"{name}.py").read_text()
    assert "arXiv 2" in text.partition('"""')[2].partition('"""')[0]


def test_options_stand_in_the_algorithms_own_table():
    plain, table = known(algorithm="dapo"), known(algorithm={"name": "dapo", "clip_high": 0.3})
    assert plain.algorithm.clip_high == 0.28 and table.algorithm.clip_high == 0.3 and table.algorithm.clip_low == 0.2
    assert table.model_dump()["algorithm"] == table.algorithm.model_dump() and table.algorithm.rounds == 10
    assert Settings.model_validate(table.model_dump()) == table


def test_the_papers_stabilisers_come_with_grpo_and_with_no_other():
    assert [s.name for s in known().chosen_stabilisers] == PAPER
    assert known(algorithm="dapo").chosen_stabilisers == ()
    (own,) = known(algorithm="dapo", stabilisers=[{"name": "clip_cov", "share": 0.1}]).chosen_stabilisers
    assert own.name == "clip_cov" and own.share == 0.1


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (
            {"algorithm": {"name": "gspo", "rounds": 3}},
            r"rounds = 3 is an option of dapo\. The algorithm 'gspo' has clip_low, clip_high\. Leave it out",
        ),
        ({"algorithm": {"name": "cispo", "clip_low": 0.1}}, r"is an option of dapo, dr_grpo, .*'cispo' has clip_high"),
        ({"algorithm": {"name": "grpo", "baseline": "group"}}, r"is an option of reinforce_pp"),
        ({"algorithm": {"name": "grpo", "sparkle": 1}}, r"sparkle = 1 is unknown\. The algorithm 'grpo' has"),
        ({"algorithm": {"name": "dapo", "clip_hgh": 1}}, r"clip_hgh = 1 is unknown: did you mean 'clip_high'\?"),
        ({"algorithm": {"name": "dapo", "rounds": 0}}, r"algorithm\.rounds\n  Input should be greater than 0"),
        ({"algorithm": "drgrpo"}, r"algorithm 'drgrpo' is unknown: did you mean 'dr_grpo'\? There are cispo, dapo"),
        ({"algorithm": {"clip_high": 0.3}}, r"this algorithm has no name: .* Add name = …, one of cispo"),
        ({"stabilisers": ["clip"]}, r"stabiliser 'clip' is unknown.* There are clip_cov, kl_cov"),
        ({"stabilisers": [{"name": "clip_cov", "to": 0.5}]}, r"to = 0.5 is an option of temperature_annealing"),
        ({"clip_high": 0.28}, r"this key is now an option of the algorithm: algorithm = "),
        ({"candidates": 4}, r"this key is now pool\.prompts"),
        ({"kl_coefficient": 0.1}, r"this key is now kl\.coefficient"),
        ({"kl": {"part_of": "reward"}}, r"this key is now kl\.estimator: k1 is part of the reward"),
        ({"pool": {"threshold": 0.5}}, r"this key is now an option of the stabilisers prompt_optimization"),
        ({"tripwires": {"pause": ["kl"]}}, r'this key is now actions = { WIRE = "pause" }'),
        ({"learning_rate": 0.1}, r"this key is now optimizer\.learning_rate"),
    ],
)
def test_an_option_that_is_not_there_is_refused(more, words):
    with pytest.raises(ValueError, match=words):
        known(**more)


@pytest.mark.parametrize("name", settings.BIASED)
def test_sampling_that_is_not_the_policys_is_refused_with_the_reason(name):
    with pytest.raises(ValueError, match=rf"{name} = 0.9 is refused: .* gradient would be biased\. Leave it out"):
        known(**{name: 0.9})


@pytest.mark.parametrize("estimator", ["k1", "k3"])
def test_a_kl_asks_for_the_reference(estimator):
    assert not build(known(), PROBLEMS, 0).reference
    assert build(known(kl={"coefficient": 0.1, "estimator": estimator}), PROBLEMS, 0).reference
    assert build(known(tripwires={"kl": 0.5}), PROBLEMS, 0).reference


def test_algorithms_and_stabilisers_say_how_many_rollouts_a_step_may_need():
    step = {"prompts_per_step": 4, "samples": 3}
    assert most_rollouts(known(algorithm="rloo", **step)) == 12
    assert most_rollouts(known(algorithm={"name": "dapo", "rounds": 5}, **step)) == 60
    assert most_rollouts(known(stabilisers=[{"name": "reward_rebalancing", "oversample": 8}], **step)) == 32


MINE = '''
"""My algorithm: GRPO with advantages times `scale`; my stabiliser draws at half the temperature."""
from dataclasses import replace

from pydantic import Field

from whetstone.rl.algorithm import AlgorithmSettings, Setup
from whetstone.rl.algorithms.grpo import grpo
from whetstone.rl.credit import centred, credit, token_mean


class Settings(AlgorithmSettings):
    scale: float = Field(2.0, gt=0, description="of the advantages")


def scaled(setup: Setup, settings: Settings):
    return replace(grpo(setup), credit=credit(lambda group: [settings.scale * a for a in centred(group)], token_mean))


def cooler(algorithm, setup, settings):
    return replace(algorithm, draw=lambda *given: replace(algorithm.draw(*given), temperature=0.5))
'''


def test_a_users_own_algorithm_and_stabiliser_are_files_with_their_options(tmp_path):
    from tests.rl.worlds import group

    (tmp_path / "mine.py").write_text(MINE)
    named = f"{tmp_path}/mine.py:scaled"
    chosen = known(algorithm={"name": named, "scale": 3.0}, stabilisers=[f"{tmp_path}/mine.py:cooler"])
    algorithm = build(chosen, PROBLEMS, 0)
    (rows,) = algorithm.credit([group("a", "+-")], [group("a", "+-")])
    assert [row.token["advantage"][0] for row in rows] == [3.0, -3.0]
    assert algorithm.draw({}, 0, []).temperature == 0.5
    assert reads(chosen) == [tmp_path / "mine.py"]
    assert Settings.model_validate(chosen.model_dump(mode="json")) == chosen, "as another process reads it"
    with pytest.raises(ValueError, match=r"scale = 0.0|greater than 0"):
        known(algorithm={"name": named, "scale": 0.0})
    with pytest.raises(ValueError, match=r"mine\.py:scaled' has scale"):
        known(algorithm={"name": named, "width": 1})
    with pytest.raises(FileNotFoundError, match=r"no such file\. Relative paths start at"):
        known(algorithm="nowhere.py:f")
