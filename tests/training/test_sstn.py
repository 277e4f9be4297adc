"""Training with the spatial transformer: the losses, what is frozen, and the stages."""

import functools
import json
import pathlib
import runpy

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import run_parts
from toy import metrics_of, same

from rmpe_jax.config import parse_config
from rmpe_jax.errors import UserError
from rmpe_jax.model_io.checkpoints import load_variables
from rmpe_jax.models.rmpe import RMPE, sdtn, stn
from rmpe_jax.skeletons import COCO, MPII, UNION
from rmpe_jax.training.loop import train
from rmpe_jax.training.objectives import PoseObjective

SIZE = (32, 32)


@pytest.fixture
def config(config):
    """The toy network within a spatial transformer, with a parallel branch."""
    config.sstn.enabled, config.sstn.parallel = True, "toy"
    config.model.init_from = "somewhere"
    return config


@pytest.fixture(scope="module")
def batch() -> dict[str, np.ndarray]:
    """Eight crops of noise, each with a well-placed crop of its own."""
    rng = np.random.default_rng(0)
    shift = rng.uniform(-4, 4, (8, 2, 1))
    return {
        "image": rng.integers(0, 256, (8, *SIZE, 3), np.uint8),
        "keypoints": rng.uniform(8, 24, (8, 17, 2)).astype(np.float32),
        "weights": (rng.uniform(size=(8, 17)) < 0.8).astype(np.float32),
        "corrupt": np.zeros(8, bool),
        "centered_from_crop": np.concatenate([np.tile(np.eye(2), (8, 1, 1)), shift], -1).astype(
            np.float32
        ),
    }


def build(config):
    built = run_parts.parts(config)
    return built.model, built.codec, run_parts.start(config), jax.jit(built.step)


def test_the_network_is_composed(config):
    config.codec.loss = "cross_entropy"
    model, codec = run_parts.network(config)
    assert isinstance(model, RMPE)
    assert model.logits
    assert codec.heatmap_size == (8, 8)
    config.sstn.enabled, config.sstn.parallel = False, ""
    assert not isinstance(run_parts.network(config)[0], RMPE)


@pytest.mark.parametrize("loss", [pytest.param("mse", marks=pytest.mark.slow), "cross_entropy"])
def test_the_loss_is_the_sum_of_both(config, batch, loss):
    """Main: the pose in the crop. Parallel: the pose in the well-placed crop's frame."""
    config.codec.loss, config.sstn.parallel_weight = loss, 0.5
    model, codec, state, step = build(config)
    batch = jax.tree.map(jnp.asarray, batch)
    (outputs, _) = jax.jit(lambda *a: model.apply(*a, train=True, mutable=["batch_stats"]))(
        {"params": state.params, "batch_stats": state.batch_stats}, codec.inputs(batch["image"])
    )
    shift = batch["centered_from_crop"][:, None, :, 2]
    main = codec.compute_loss(outputs.heatmaps, batch["keypoints"], batch["weights"])
    parallel = codec.compute_loss(
        outputs.parallel_heatmaps, batch["keypoints"] + shift, batch["weights"]
    )
    _, metrics = step(state, batch)
    assert float(metrics["loss"]) == pytest.approx(float(main + 0.5 * parallel), rel=1e-5)
    assert float(metrics["parallel_loss"]) == pytest.approx(float(parallel), rel=1e-5)
    # theta is the identity: every corner is off by the shift, in units of half a side.
    expected = np.linalg.norm(shift / (31 / 2), axis=-1).mean()
    assert float(metrics["placement"]) == pytest.approx(expected, rel=1e-5)


@pytest.mark.slow
def test_the_parallel_branch_stays_to_the_last_bit(config, batch):
    """Under weight decay, momentum, averaging and accumulation; all else moves."""
    config.optim.name, config.optim.weight_decay = "adamw", 0.1
    config.optim.learning_rate, config.grad_accumulation = 0.01, 2
    _, _, first, step = build(config)
    state = first
    for _ in range(4):
        state, _ = step(state, batch)
    for before, after in (
        (first.params, state.params),
        (first.ema["params"], state.ema["params"]),
        (first.batch_stats, state.batch_stats),
    ):
        assert same(before["parallel_sppe"], after["parallel_sppe"])
        for name in ("sppe", "localization"):
            moved = jax.tree.map(lambda a, b: bool((a != b).any()), before[name], after[name])
            # The first step's gradient stops at theta's zero kernel, later ones do not.
            assert all(jax.tree.leaves(moved)), name
    paths = [str(path) for path, _ in jax.tree.leaves_with_path(state.opt_state)]
    assert not any("parallel_sppe" in path for path in paths)


@pytest.mark.slow
def test_the_localization_network_learns_at_its_own_rate(config, batch):
    config.optim.name = "rmsprop"
    _, _, first, step = build(config)
    whole, _ = step(first, batch)
    config.sstn.localization_factor = 0.1
    _, _, again, slow_step = build(config)
    slow, _ = slow_step(again, batch)

    def change(state, *path):
        value = lambda tree: tree[path[0]][path[1]][path[2]]  # noqa: E731
        return value(state.params) - value(first.params)

    theta = ("localization", "theta", "bias")
    np.testing.assert_allclose(change(slow, *theta), 0.1 * change(whole, *theta), rtol=2e-3)
    rest = ("sppe", "conv", "kernel")
    np.testing.assert_allclose(change(slow, *rest), change(whole, *rest), rtol=1e-5, atol=1e-7)


@pytest.mark.slow
@pytest.mark.parametrize("parallel", ["toy", ""])
def test_differences_guide_the_localization_network(config, batch, parallel):
    """Theta's bias gets the central differences of the guiding loss, the rest what it had."""
    config.sstn.parallel, config.sstn.parallel_weight = parallel, 0.5
    config.sstn.difference_step = 0.2
    plain, _, state, _ = build(config)
    config.sstn.guidance = "differences"
    model, codec = run_parts.network(config)
    objective = PoseObjective(codec, parse_config(config).sstn)
    batch = jax.tree.map(jnp.asarray, batch)

    @functools.partial(jax.jit, static_argnums=0)
    def gradient(model, params):
        def loss(params):
            variables = {"params": params, "batch_stats": state.batch_stats}
            x = codec.inputs(batch["image"])
            outputs, _ = model.apply(variables, x, train=True, mutable=["batch_stats"])
            return objective.loss(outputs, batch)[0]

        return jax.value_and_grad(loss)(params)

    value, grads = gradient(model, state.params)
    expected_value, expected = gradient(plain, state.params)
    assert float(value) == pytest.approx(float(expected_value), rel=1e-5)
    kernel = ("conv_out", "kernel")
    np.testing.assert_allclose(
        grads["sppe"][kernel[0]][kernel[1]], expected["sppe"][kernel[0]][kernel[1]], atol=1e-6
    )

    name = "parallel_sppe" if parallel else "sppe"
    variables = {"params": state.params[name], "batch_stats": state.batch_stats[name]}
    shift = batch["centered_from_crop"][:, None, :, 2]
    keypoints = batch["keypoints"] + (shift if parallel else 0)

    @jax.jit
    def guiding_loss(theta):
        """The mean over the crops, with the statistics at the start."""
        thetas = jnp.tile(theta, (8, 1, 1))
        heatmaps = plain.sppe.apply(variables, stn(codec.inputs(batch["image"]), thetas))
        heatmaps = heatmaps if parallel else sdtn(heatmaps, thetas, SIZE)
        values = (heatmaps[:, None], keypoints[:, None], batch["weights"][:, None])
        return jax.vmap(codec.compute_loss)(*values).mean()

    slopes = np.zeros((2, 3))
    for entry in ((0, 2), (1, 1)):
        step = np.zeros((2, 3), np.float32)
        step[entry] = 0.2
        ahead, behind = (float(guiding_loss(jnp.eye(2, 3) + s)) for s in (step, -step))
        slopes[entry] = (ahead - behind) / 0.4 * (0.5 if parallel else 1)
    bias = np.asarray(grads["localization"]["theta"]["bias"]).reshape(2, 3)
    for entry in ((0, 2), (1, 1)):
        assert bias[entry] == pytest.approx(slopes[entry], rel=0.02, abs=1e-6)
        assert slopes[entry] != 0
    assert bias[0, 1] == bias[1, 0] == 0


@pytest.mark.slow
@pytest.mark.parametrize("guidance", ["autodiff", "differences"])
def test_the_parallel_branch_teaches_where_to_look(config, batch, guidance):
    """With an ideal parallel branch theta finds the well-placed crops.

    Crops show three joints as a red, a green and a blue spot; the branch's heatmaps are the view.
    """
    rng = np.random.default_rng(1)
    keypoints, weights = (np.zeros((8, 17, *rest), np.float32) for rest in ((2,), ()))
    keypoints[:, :3] = rng.uniform(8, 24, (8, 3, 2))
    weights[:, :3] = 1
    grid = np.stack(np.meshgrid(np.arange(32), np.arange(32)), -1)[None, :, :, None]
    squares = ((grid - keypoints[:, None, None, :3]) ** 2).sum(-1)
    batch = batch | {
        "keypoints": keypoints,
        "weights": weights,
        "image": (255 * np.exp(-squares / (2 * 8.0**2))).astype(np.uint8),
        "centered_from_crop": np.tile([[1, 0, 3], [0, 1, -2]], (8, 1, 1)).astype(np.float32),
    }
    config.model.mean, config.model.std = (0.0,) * 3, (1.0,) * 3
    config.optim.learning_rate, config.sstn.parallel_weight = 0.003, 10.0
    config.sstn.guidance = guidance
    _, _, state, step = build(config)
    branch = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), state.params["sppe"])
    branch["backbone"]["bn"]["scale"] += 1
    for color in range(3):  # means of 4x4 pixels, then twice the middle pixel alone
        branch["backbone"]["conv"]["kernel"][:, :, color, color] = 1 / 16
        branch["conv"]["kernel"][2, 2, color, color] = 1
        branch["conv_out"]["kernel"][1, 1, color, color] = 1
    state = state.replace(params=state.params | {"parallel_sppe": branch})
    errors = []
    for _ in range(100):
        state, metrics = step(state, batch)
        errors.append(float(metrics["placement"]))
    assert errors[-1] < 0.5 * errors[0]


@pytest.mark.slow
def test_the_stn_can_be_told_where_to_look(config, batch):
    """Without a parallel branch; also where a crop is well placed already."""
    config.sstn.parallel, config.sstn.placement_weight = "", 10.0
    batch = batch | {"centered_from_crop": np.tile(np.eye(2, 3, dtype=np.float32), (8, 1, 1))}
    batch["centered_from_crop"][:4] = [[1, 0, 3], [0, 1, -2]]
    config.optim.learning_rate = 0.003
    _, _, state, step = build(config)
    errors, losses = [], []
    for _ in range(60):
        state, metrics = step(state, batch)
        errors.append(float(metrics["placement"]))
        losses.append(float(metrics["loss"]))
    assert errors[-1] < 0.6 * errors[0]
    config.sstn.placement_weight = 0.0
    *_, again, paper = build(config)
    _, metrics = paper(again, batch)
    assert losses[0] - float(metrics["loss"]) == pytest.approx(10 * errors[0], rel=1e-4)


# ---- stages --------------------------------------------------------------------------------------


@pytest.mark.slow
def test_two_stages(config, demo, tmp_path):
    """An SPPE alone; then within the transformer, from its weights; then on from there."""
    first, second = tmp_path / "one", tmp_path / "two"
    stage = config.copy_and_resolve_references()
    stage.sstn.enabled, stage.sstn.parallel, stage.model.init_from = False, "", ""
    train(stage, first)
    sppe, _ = load_variables(first / "checkpoints")

    config.model.init_from = str(first)
    config.data.evaluate = (f"coco:{demo}",)
    scores = train(config, second)
    assert scores
    assert {"train/parallel_loss", "train/placement"} <= set(metrics_of(second)[0])
    both, _ = load_variables(second / "checkpoints")
    for kind in ("params", "batch_stats"):
        assert same(both[kind]["parallel_sppe"], sppe[kind])
        assert not same(both[kind]["sppe"], sppe[kind])

    # The workdir of the first stage is not needed to go on with the second.
    config.model.init_from, config.total_steps = str(tmp_path / "gone"), 6
    train(config, second)
    assert [line["step"] for line in metrics_of(second) if "train/loss" in line][-1] == 6

    config.model.init_from, config.data.evaluate = str(second), ()
    both, _ = load_variables(second / "checkpoints")
    state = run_parts.resumed(config, run_parts.start(config))
    assert same(state.variables, both)
    stage.model.init_from = str(second)
    state = run_parts.resumed(stage, run_parts.start(stage))
    assert same(state.params, both["params"]["sppe"])
    assert int(state.step) == 0


@pytest.mark.slow
def test_each_branch_from_its_own_run(config, tmp_path):
    """The paper's parallel SPPE is another, smaller network."""
    runs = {}
    for name in ("toy", "toy_plain"):
        stage = config.copy_and_resolve_references()
        stage.sstn.enabled, stage.sstn.parallel, stage.model.init_from = False, "", ""
        stage.model.name, stage.total_steps = name, 1
        train(stage, tmp_path / name)
        runs[name], _ = load_variables(tmp_path / name / "checkpoints")
    config.sstn.parallel, config.sstn.parallel_from = "toy_plain", str(tmp_path / "toy_plain")
    config.model.init_from = str(tmp_path / "toy")
    fresh = run_parts.start(config)
    state = run_parts.resumed(config, fresh)
    assert same(state.params["sppe"], runs["toy"]["params"])
    assert same(state.params["parallel_sppe"], runs["toy_plain"]["params"])
    assert same(state.params["localization"], fresh.params["localization"])
    assert same(state.ema, state.latest)
    buffers = [id(leaf) for leaf in jax.tree.leaves((state.latest, state.ema))]
    assert len(set(buffers)) == len(buffers)

    config.sstn.parallel = "toy"
    with pytest.raises(UserError, match=r"model\.name='toy_plain' cannot start one of 'toy'"):
        run_parts.resumed(config, fresh)


@pytest.mark.slow
def test_a_run_with_more_joints_gives_those_of_ours(config, tmp_path, caplog):
    stage = config.copy_and_resolve_references()
    stage.sstn.enabled, stage.sstn.parallel, stage.model.init_from = False, "", ""
    stage.model.skeleton, stage.total_steps = "union", 1
    train(stage, tmp_path)
    union, _ = load_variables(tmp_path / "checkpoints")

    config.sstn.enabled, config.sstn.parallel = False, ""
    config.model.init_from = str(tmp_path)
    ours = UNION.indices_in(UNION)[UNION.indices_in(COCO) >= 0]

    state = run_parts.resumed(config, run_parts.start(config))
    assert same(state.params["backbone"], union["params"]["backbone"])
    assert same(state.params["conv"], union["params"]["conv"])
    expected = jax.tree.map(lambda leaf: leaf[..., ours], union["params"]["conv_out"])
    assert same(state.params["conv_out"], expected)

    # The other way there are joints that it never learned: they start anew.
    stage.model.skeleton, stage.model.init_from = "mpii", str(tmp_path)
    config.model.skeleton, config.model.init_from = "union", str(tmp_path / "mpii")
    train(stage, tmp_path / "mpii")
    fresh = run_parts.start(config)
    state = run_parts.resumed(config, fresh)
    assert "for mpii joints, lacks 5 of 21 joints, which start anew: nose, left_eye" in caplog.text
    mpii, _ = load_variables(tmp_path / "mpii" / "checkpoints")
    places = UNION.indices_in(MPII)
    for leaf in ("kernel", "bias"):
        ours, theirs, initial = (
            np.asarray(tree["conv_out"][leaf])
            for tree in (state.params, mpii["params"], fresh.params)
        )
        np.testing.assert_array_equal(ours[..., places >= 0], theirs[..., places[places >= 0]])
        np.testing.assert_array_equal(ours[..., places < 0], initial[..., places < 0])


def test_a_run_goes_on_only_as_what_it_was(config, tmp_path):
    stage = config.copy_and_resolve_references()
    stage.sstn.enabled, stage.sstn.parallel, stage.model.init_from = False, "", ""
    stage.total_steps = 1
    train(stage, tmp_path)
    config.model.init_from = str(tmp_path)
    with pytest.raises(UserError, match=r"config\.sstn\.enabled=False, the config says True"):
        train(config, tmp_path)
    # A checkpoint of before there was a transformer counts as one without.
    for file in tmp_path.glob("checkpoints/*/meta/metadata"):
        meta = json.loads(file.read_text())
        del meta["config"]["sstn"]
        file.write_text(json.dumps(meta))
    stage.total_steps = 2
    train(stage, tmp_path)


@pytest.mark.parametrize("stage", ["1a", "1b", "2a", "2b"])
def test_the_papers_stages(stage):
    path = pathlib.Path(__file__).parents[2] / "configs/mpii_rmpe.py"
    get_config = runpy.run_path(str(path))["get_config"]
    config = get_config(f"{stage},data,here")
    parse_config(config)
    before = {"1a": "hourglass", "1b": "rmpe_1a", "2a": "rmpe_1b", "2b": "rmpe_2a"}[stage]
    assert config.model.init_from == f"here/{before}"
    assert config.sstn.enabled == stage.startswith("2")
    # The first steps of RMSprop are ten times as long as the rate says.
    assert config.sstn.localization_factor == (0.05 if config.sstn.enabled else 1.0)
    assert (float(run_parts.rate(config)(0)) == 0) == config.sstn.enabled
    with pytest.raises(UserError, match="no stage '3'; use 1a"):
        get_config("3")


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"sstn.localization": "resnet"}, "did you mean 'resnet18'"),
        ({"sstn.parallel": "toyy"}, "did you mean 'toy'"),
        ({"sstn.enabled": False}, "empty without sstn.enabled"),
        ({"model.init_from": ""}, "config.sstn.parallel_from=''"),
        ({"sstn.parallel": "toy_plain"}, "config.sstn.parallel_from=''"),
        ({"sstn.parallel_weight": -1.0}, "0 or more"),
        ({"sstn.localization_factor": -1.0}, "0 or more"),
    ],
)
def test_a_config_that_cannot_be(config, changes, says):
    parse_config(config)
    config.update_from_flattened_dict(changes)
    with pytest.raises(UserError) as error:
        parse_config(config)
    assert says in str(error.value)
    assert "\n" not in str(error.value)
