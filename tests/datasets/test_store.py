"""What is written is what is read, for any shapes, dtypes and names, in a file that The Well's rules accept."""

import json
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from neuralop_kit import Domain
from neuralop_kit.datasets import Description, Parameter, ShardWriter, check_file, open_dataset
from neuralop_kit.datasets.fletcher import fletcher32, matches
from neuralop_kit.datasets.journal import Journal
from neuralop_kit.datasets.layout import OUR_ATTRIBUTES, WELL_ATTRIBUTES
from neuralop_kit.datasets.manifest import Manifest
from neuralop_kit.datasets.statistics import FieldStatistics
from neuralop_kit.solvers.errors import ArgumentError, DataError, NonFiniteError, ShapeError
from tests.datasets import tiny

NAMES = st.text(min_size=1, max_size=12).filter(
    lambda s: s.strip() == s and s.isprintable() and "/" not in s and s not in (".", "..")
)
AXES = st.sampled_from([("periodic", "left"), ("dirichlet", "vertex"), ("neumann", "cell"), ("dirichlet", "interior")])


@st.composite
def descriptions(draw) -> Description:
    if draw(st.integers(0, 5)) == 0:
        domain, shape = Domain.sphere(radius=2.0), (draw(st.integers(2, 5)), draw(st.integers(1, 6)))
    else:
        axes = draw(st.lists(AXES, min_size=1, max_size=3))
        boundary, nodes = zip(*axes, strict=True)
        lengths = draw(st.lists(st.floats(1e-3, 1e3), min_size=len(axes), max_size=len(axes)))
        domain = Domain.box(lengths, boundary=boundary, nodes=nodes)
        shape = tuple(draw(st.integers(2, 6)) for _ in axes)
    names = draw(st.lists(NAMES, min_size=2, max_size=5, unique=True))
    split = draw(st.integers(1, len(names) - 1))
    taken = {*WELL_ATTRIBUTES, *OUR_ATTRIBUTES}
    parameters = draw(st.lists(NAMES.filter(lambda s: s not in taken), max_size=3, unique=True))
    return Description(
        name=draw(st.text(max_size=10).filter(lambda s: s.isprintable())),
        equation="v = G(u)",
        domain=domain,
        shape=shape,
        input_names=tuple(names[:split]),
        target_names=tuple(names[split:]),
        units={name: "m" for name in names},
        parameters={name: Parameter(1.5, "s", "a number") for name in parameters},
        dtype=draw(st.sampled_from(["float32", "float64"])),
    )


def simple(dtype: str = "float32", shape: tuple[int, ...] = (5, 7)) -> Description:
    domain = Domain.periodic((1.0,) * len(shape))
    units = {"u": "1", "v": "K"}
    return Description("simple", "v = u", domain, shape, ("u",), ("v",), units, dtype=dtype)


def write(folder: Path, description: Description, samples: np.ndarray) -> Path:
    """``samples`` ``(sample, field, *space)`` as one file."""
    with ShardWriter(folder, "one.hdf5", description, num_samples=len(samples), generator={"seed": 1}) as writer:
        for sample in samples:
            writer.append(sample)
        writer.finish()
    return folder / "one.hdf5"


class TestRoundTrip:
    @settings(max_examples=40, suppress_health_check=[HealthCheck.too_slow], deadline=None)
    @given(data=st.data(), description=descriptions(), num_samples=st.integers(1, 4))
    def test_fields_names_and_description_survive(self, tmp_path_factory, data, description, num_samples):
        shape = (num_samples, len(description.field_names), *description.shape)
        width = 32 if description.dtype == "float32" else 64
        elements = st.floats(allow_nan=False, allow_infinity=False, width=width)
        samples = data.draw(npst.arrays(description.dtype, shape, elements=elements))
        path = write(tmp_path_factory.mktemp("round"), description, samples)
        assert check_file(path) == []
        dataset = open_dataset(path)
        assert dataset.description == description
        inputs, targets = dataset.read(range(num_samples))
        again = torch.cat([inputs, targets], dim=1).numpy()
        assert again.dtype.name == description.dtype
        assert again.tobytes() == samples.tobytes()  # bit by bit, negative zeros and denormals too
        assert dataset.domain.to_json() == description.domain.to_json()

    def test_file_is_readable_by_plain_h5py(self, tmp_path):
        samples = np.random.default_rng(0).standard_normal((3, 2, 5, 7)).astype(np.float32)
        with h5py.File(write(tmp_path, simple(), samples)) as file:
            np.testing.assert_array_equal(file["t0_fields/u"][...], samples[:, 0])
            np.testing.assert_array_equal(file["t0_fields/v"][...], samples[:, 1])
            assert file["t0_fields/v"].attrs["unit"] == "K"
            assert file["t0_fields/u"].fletcher32
            assert file.attrs["complete"]
            np.testing.assert_allclose(file["dimensions/x"][...], np.arange(5) / 5, rtol=1e-6)
            assert list(file["boundary_conditions"]) == ["x_periodic", "y_periodic"]

    def test_same_samples_give_the_same_bytes(self, tmp_path):
        samples = np.random.default_rng(0).standard_normal((3, 2, 5, 7)).astype(np.float32)
        first, second = (write(tmp_path / name, simple(), samples).read_bytes() for name in "ab")
        assert first == second

    def test_statistics_of_the_file(self, tmp_path):
        samples = np.random.default_rng(0).standard_normal((3, 2, 5, 7)).astype(np.float32)
        statistics = open_dataset(write(tmp_path, simple(), samples)).statistics
        assert statistics is not None
        assert statistics.input.mean[0] == pytest.approx(samples[:, 0].mean(dtype=np.float64), abs=1e-12)
        assert statistics.target.std[0] == pytest.approx(samples[:, 1].std(dtype=np.float64), rel=1e-12)
        assert statistics.fields["v"].maximum == samples[:, 1].max()


class TestWriter:
    @pytest.mark.parametrize(
        ("sample", "error"),
        [
            (np.zeros((2, 5, 7)), ShapeError),
            (np.zeros((2, 7, 5), dtype=np.float32), ShapeError),
            (np.zeros((1, 5, 7), dtype=np.float32), ShapeError),
            (np.full((2, 5, 7), np.nan, dtype=np.float32), NonFiniteError),
            (np.full((2, 5, 7), -np.inf, dtype=np.float32), NonFiniteError),
        ],
    )
    def test_bad_sample_is_refused_and_the_writer_goes_on(self, tmp_path, sample, error):
        with ShardWriter(tmp_path, "one.hdf5", simple(), num_samples=1, generator={}) as writer:
            with pytest.raises(error, match="expected"):
                writer.append(sample)
            assert writer.num_done == 0
            writer.append(np.ones((2, 5, 7), dtype=np.float32))
            writer.finish()
        assert open_dataset(tmp_path / "one.hdf5")[0][0].eq(1).all()

    def test_unfinished_shard_is_not_written(self, tmp_path):
        with (
            ShardWriter(tmp_path, "one.hdf5", simple(), num_samples=2, generator={}) as writer,
            pytest.raises(DataError, match="expected 2 samples"),
        ):
            writer.finish()
        assert not (tmp_path / "one.hdf5").exists()

    def test_other_writer_of_the_same_shard_is_refused(self, tmp_path):
        settings = {"identity": b"x" * 32, "record_bytes": 8, "patience": 0.1}
        with (
            Journal(tmp_path / "journal", **settings),
            pytest.raises(DataError, match="expected to be the only writer"),
        ):
            Journal(tmp_path / "journal", **settings)

    def test_journal_of_other_samples_is_not_continued(self, tmp_path):
        for seed in (1, 2):
            with ShardWriter(tmp_path, "one.hdf5", simple(), num_samples=2, generator={"seed": seed}) as writer:
                assert writer.num_done == 0
                writer.append(np.ones((2, 5, 7), dtype=np.float32))

    @pytest.mark.parametrize(
        "changes",
        [
            {"input_names": ()},
            {"input_names": ("v",)},
            {"input_names": ("a/b",)},
            {"input_names": ("..",)},
            {"input_names": ("",)},
            {"input_names": ("new\nline",)},
            {"input_names": ("u" * 256,)},
            {"units": {"u": "1"}},
            {"dtype": "float16"},
            {"shape": (2**29,)},
        ],
    )
    def test_bad_description_is_refused(self, changes):
        arguments = {"input_names": ("u",), "target_names": ("v",), **changes}
        names = (*arguments["input_names"], "v")
        arguments = {"shape": (4,), "units": {name: "1" for name in names}, **arguments}
        with pytest.raises(ArgumentError, match="expected"):
            Description("simple", "v = u", Domain.periodic((1.0,)), **arguments)

    def test_parameter_cannot_hide_an_attribute(self, tmp_path):
        parameters = {"complete": Parameter(1.0, "1", "a trap")}
        description = Description(
            "trap", "", Domain.periodic((1.0,)), (4,), ("u",), ("v",), {"u": "1", "v": "1"}, parameters=parameters
        )
        with pytest.raises(ArgumentError, match="not named like attributes"):
            write(tmp_path, description, np.zeros((1, 2, 4), dtype=np.float32))


class TestWellLayout:
    def test_generated_files_conform(self, whole):
        files = sorted(whole.glob("data/*/*.hdf5"))
        assert len(files) == 5
        assert [check_file(file) for file in files] == [[]] * 5

    @pytest.mark.parametrize(
        ("change", "fault"),
        [
            (lambda f: f.attrs.__delitem__("dataset_name"), "no attribute 'dataset_name'"),
            (lambda f: f.attrs.__setitem__("grid_type", "round"), "expected grid_type"),
            (lambda f: f.attrs.__setitem__("n_spatial_dims", "two"), "wrong type"),
            (lambda f: f.attrs.__setitem__("n_trajectories", 9), "with shape"),
            (lambda f: f.attrs.__setitem__("simulation_parameters", ["missing"]), "is no attribute of /"),
            (lambda f: f.__delitem__("t2_fields"), "missing are ['t2_fields']"),
            (lambda f: f.__delitem__("dimensions/time"), "/dimensions/time is missing"),
            (lambda f: f["dimensions/time"].attrs.__delitem__("time_varying"), "no attribute 'time_varying'"),
            (lambda f: f["dimensions"].attrs.__setitem__("spatial_dims", ["x"]), "n_spatial_dims names"),
            (lambda f: f["t0_fields/u"].attrs.__setitem__("time_varying", True), "with shape"),
            (lambda f: f["t0_fields/u"].attrs.__setitem__("dim_varying", [True, False]), "with shape"),
            (lambda f: f["t0_fields/u"].attrs.__setitem__("dim_varying", [1, 1]), "wrong type"),
            (lambda f: f.move("t0_fields/u", "t1_fields/u"), "not among its field_names"),
            (lambda f: f["t1_fields"].attrs.__setitem__("field_names", "u"), "wrong type"),
            (lambda f: f.create_dataset("scalars/extra", data=1.0), None),
            (lambda f: f["scalars"].attrs.__setitem__("field_names", ["lost"]), "/scalars/lost is missing"),
            (lambda f: f["boundary_conditions/x_periodic"].attrs.__setitem__("bc_type", "wet"), "expected bc_type"),
            (lambda f: f["boundary_conditions/x_periodic"].attrs.__setitem__("associated_dims", "x"), "wrong type"),
            (lambda f: f["boundary_conditions/x_periodic"].attrs.__setitem__("associated_dims", ["y"]), "the mask"),
            (lambda f: f["boundary_conditions/x_periodic/mask"].write_direct(np.zeros(5, bool)), "marks nothing"),
            (lambda f: f.__delitem__("boundary_conditions/x_periodic/mask"), "has no mask"),
        ],
    )
    def test_each_departure_is_found(self, tmp_path, change, fault):
        path = write(tmp_path, simple(), np.zeros((2, 2, 5, 7), dtype=np.float32))
        with h5py.File(path, "r+") as file:
            change(file)
        faults = check_file(path)
        assert faults == [] if fault is None else any(fault in found for found in faults), faults


class TestFletcher:
    @settings(max_examples=30, deadline=None)
    @given(npst.arrays(np.uint8, st.tuples(st.integers(1, 3), st.integers(1, 40).map(lambda n: 4 * n))))
    def test_equals_what_hdf5_stores(self, tmp_path_factory, chunks):
        path = tmp_path_factory.mktemp("fletcher") / "file"
        with h5py.File(path, "w") as file:
            data = file.create_dataset("a", data=chunks.view("<f4"), chunks=(1, chunks.shape[1] // 4), fletcher32=True)
            raw = [data.id.read_direct_chunk((k, 0))[1] for k in range(len(chunks))]
        stored = np.array([np.frombuffer(chunk[-4:], dtype="<u4")[0] for chunk in raw])
        assert matches(chunks, stored).all()
        assert not matches(chunks, stored ^ 1).any()

    def test_long_chunks_are_summed_without_rounding(self):
        # Largest words, several blocks: exact integers as the reference.
        chunks = np.full((1, 5 * 2**20), 0xFF, dtype=np.uint8)
        chunks[0, ::7] = 0x12
        words = [int(w) for w in chunks[0].view(">u2")]
        first = second = 0
        for word in words:
            first = (first + word) % 65535
            second = (second + first) % 65535
        assert int(fletcher32(chunks)[0]) == second * 65536 + first


class TestStatistics:
    @settings(max_examples=30, deadline=None)
    @given(
        npst.arrays(np.float64, (7, 4), elements=st.floats(-1e6, 1e6)),
        st.lists(st.integers(1, 6), unique=True, max_size=3),
    )
    def test_merging_parts_equals_all_at_once(self, values, cuts):
        weights = np.array([0.5, 1.0, 1.0, 0.5])
        parts = [FieldStatistics.of(part, weights) for part in np.split(values, sorted(cuts))]
        merged, whole = FieldStatistics.merge(parts), FieldStatistics.of(values, weights)
        expected = np.average(values, weights=np.broadcast_to(weights, values.shape))
        spread = np.sqrt(np.average((values - expected) ** 2, weights=np.broadcast_to(weights, values.shape)))
        for found in (merged, whole):
            assert found.samples == 7
            assert found.mean == pytest.approx(expected, rel=1e-12, abs=1e-9)
            assert found.std == pytest.approx(spread, rel=1e-9, abs=1e-7)
            assert (found.minimum, found.maximum) == (values.min(), values.max())

    def test_small_deviation_from_a_large_mean(self):
        values = 1e8 + np.random.default_rng(0).standard_normal((50, 100)).astype(np.float64)
        parts = [FieldStatistics.of(part, np.ones(100)) for part in np.split(values, 5)]
        assert FieldStatistics.merge(parts).std == pytest.approx(values.std(), rel=1e-6)
        # Negative control: E[x^2] - E[x]^2 has no digit left.
        naive = np.sqrt(np.abs(np.square(values).mean() - values.mean() ** 2))
        assert abs(naive - values.std()) > 0.1

    def test_of_the_training_set_in_every_split(self, whole):
        train = open_dataset(whole, "train")
        inputs, targets = (part.double() for part in train.read(range(len(train))))
        for split in ("train", "valid", "test"):
            statistics = open_dataset(whole, split).statistics
            assert statistics is not None
            assert statistics.input.mean == pytest.approx(inputs.mean((0, 2, 3)).tolist(), abs=1e-7)
            assert statistics.target.std == pytest.approx(targets.std((0, 2, 3), correction=0).tolist(), rel=1e-6)
        rms = inputs.square().mean().sqrt().item()
        assert Manifest.load(whole).statistics["force"].rms == pytest.approx(rms, rel=1e-6)

    def test_none_without_a_training_set(self, tmp_path):
        folder = tiny.make(tmp_path / "data", samples=3, splits={"test": 1})
        assert open_dataset(folder, "test").statistics is None
        assert not (folder / "stats.yaml").exists()

    def test_wells_statistics_file(self, whole):
        text = (whole / "stats.yaml").read_text()
        rows = dict(line.strip().split(": ") for line in text.splitlines() if line.startswith("  "))
        assert set(rows) == {'"force"', '"potential"', '"slope"'}
        assert text.count("\n") == 3 * 4 + 3
        # YAML 1.1 takes a number in exponent form only with a point and a signed exponent.
        assert all("." in value and ("e+" in value or "e-" in value) for value in rows.values())


class TestManifest:
    def change(self, whole: Path, folder: Path, edit) -> Path:
        document = json.loads((whole / "dataset.json").read_text())
        edit(document)
        folder.mkdir()
        (folder / "dataset.json").write_text(json.dumps(document))
        return folder

    def test_round_trip(self, whole, tmp_path):
        manifest = Manifest.load(whole)
        manifest.save(tmp_path)
        assert (tmp_path / "dataset.json").read_bytes() == (whole / "dataset.json").read_bytes()
        for entries in manifest.splits.values():
            for entry in entries:
                entry.verify(whole)

    @pytest.mark.parametrize(
        "edit",
        [
            lambda d: d["splits"]["train"][0].update(file="../outside.hdf5"),
            lambda d: d["splits"]["train"][0].update(file="/etc/passwd"),
            lambda d: d["splits"]["train"][0].update(samples=-1),
            lambda d: d["splits"]["train"][0].update(sha256="0"),
            lambda d: d["splits"].update(holdout=[]),
            lambda d: d.update(format="other"),
            lambda d: d.update(format_version=99),
            lambda d: d.pop("description"),
            lambda d: d["description"].update(shape=[5, -7]),
            lambda d: d["description"].update(shape=[5]),
            lambda d: d["description"].update(domain={"type": "box", "axes": []}),
            lambda d: d["description"].update(units={}),
            lambda d: d["statistics"].update(force={"mean": "much"}),
            lambda d: d["statistics"]["force"].update(std=-1.0),
            lambda d: d.update(splits=[1]),
            lambda d: d.update(generation=None),
        ],
    )
    def test_damage_is_our_error(self, whole, tmp_path, edit):
        with pytest.raises(DataError, match="expected"):
            open_dataset(self.change(whole, tmp_path / "data", edit))

    @pytest.mark.parametrize("content", [b"", b"{", b"[]", b"null", b"\xff\xfe", b"[" * 100_000])
    def test_no_manifest_is_our_error(self, tmp_path, content):
        (tmp_path / "dataset.json").write_bytes(content)
        with pytest.raises(DataError, match="expected"):
            open_dataset(tmp_path)
