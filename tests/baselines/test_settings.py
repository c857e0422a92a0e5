"""Settings that cannot be are refused, with the setting and its value; estimates of passes."""

import pytest

import baselines

WRONG = [
    ("codaprompt", {"prompt_length": 3}, "even"),
    ("codaprompt", {"components": 0}, "at least 1"),
    ("derpp", {"buffer": 0}, "at least 1"),
    ("derpp", {"logit_weight": -0.1}, "negative"),
    ("dualprompt", {"task_length": -1}, "negative"),
    ("ease", {"donors": "all"}, "later, new"),
    ("ease", {"reweight": -1.0}, "negative"),
    ("ewc", {"trained": "head"}, "adapter, all"),
    ("ewc", {"trained": "all", "rank": 4}, "leave it out"),
    ("ewc", {"strength": -1.0}, "negative"),
    ("fix", {"shots": 0}, "at least 1"),
    ("fix", {"shot_tokens": -3}, "at least 1"),
    ("gem", {"memory_per_task": 0}, "at least 1"),
    ("hidelora", {"momentum": 2.0}, r"\[0, 1\]"),
    ("hidelora", {"start": "zero"}, "rank, width"),
    ("hidelora", {"statistics": "kmeans"}, "covariance"),
    ("hidelora", {"targets": "vk"}, "qkv"),
    ("hidelora language", {"covariance": "diagonal"}, "ledoit-wolf"),
    ("hidelora language", {"ridge": 0.0}, "positive"),
    ("hideprompt", {"head_rate": -0.1}, "negative"),
    ("inflora", {"lamb": 0.9, "lame": 0.8}, "lamb <= lame"),
    ("l2p", {"top_k": 31}, "pool_size, 30"),
    ("l2p", {"positions": "all"}, "cls, none"),
    ("magmax", {"density": 0.0}, "positive"),
    ("magmax", {"density": 1.5}, r"\[0, 1\]"),
    ("magmax", {"merge": "max"}, "magmax, mean, ties"),
    ("magmax", {"scale": -0.5}, "positive"),
    ("ogd", {"optimizer": "adamw"}, "adam, sgd"),
    ("olora", {"size": -0.5}, "negative"),
    ("ranpac", {"ridge": 0.0}, "positive"),
    ("sapt", {"kappa": 0.0}, "set replay: none"),
    ("sapt", {"replay_share": 0.0}, r"\(0, 1\]"),
    ("sdlora", {"magnitude": 0.0}, "positive"),
    ("seqlora", {"layers": 0}, "at least 1"),
    ("seqlora", {"dropout": 1.0}, r"\[0, 1\)"),
    ("tasl", {"beta1": 1.0}, r"\[0, 1\)"),
    ("treelora", {"similarity": "l2"}, "l1"),
]


@pytest.mark.parametrize(("name", "config", "rule"), WRONG)
def test_a_wrong_setting_is_refused_with_its_value(name, config, rule):
    key, value = list(config.items())[-1]
    with pytest.raises(ValueError, match=rule) as error:
        baselines.load(*name.split()).Config(**config)
    assert key in str(error.value) and str(value) in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("name", "config", "said"),
    [
        ("dualprompt", {}, r"shared_layers \+ task_layers .* 4.* 5"),
        ("codaprompt", {}, "layers .* 4.* 5"),
        ("seqlora", {"layers": 6}, "layers .* 4, but is 6"),
        ("hidetreelora", {"depth": 9}, "depth .* 8, but is 9"),
    ],
)
def test_settings_that_no_backbone_of_four_blocks_fits_are_refused(name, config, said):
    settings = baselines.load(name).Config(**config)
    settings.check(24)
    with pytest.raises(ValueError, match=said):
        settings.check(8)


@pytest.mark.parametrize(
    ("name", "config", "expected"),
    [
        ("seqlora", {}, (200, 200)),
        ("l2p", {}, (400, 200)),
        ("dualprompt", {"cache_queries": True}, (300, 200)),
        ("hidelora", {}, (600, 400)),
        ("hidelora language", {}, (400, 200)),
        ("hideprompt", {}, (400, 200)),
        ("hideprompt", {"cache_features": False}, (600, 200)),
        ("inflora", {}, (400, 200)),
        ("ranpac", {}, (100, 0)),
        ("ease", {}, (200 + 4 * 100, 200)),
        ("magmax", {}, (200, 200)),
        ("ogd", {"directions": 30}, (230, 230)),
        ("ogd", {"directions": 300}, (300, 300)),
        ("ewc", {"fisher_samples": 30}, (230, 230)),
        ("ewc", {"fisher_samples": 30, "trained": "all"}, (460, 230)),
        ("derpp", {}, (600, 600)),
        ("derpp", {"logit_weight": 0.0, "buffer": 10}, (280, 280)),
        ("gem", {"memory_per_task": 10}, (200 + 2 * 4 * 30,) * 2),
    ],
)
def test_passes_of_a_fourth_task_of_100_samples_in_two_epochs(name, config, expected):
    method = baselines.load(*name.split())
    assert method.passes(method.Config(**config), 3, 100, 2, 32) == expected
