import numpy as np

from wgf.experiments._results import results_folder, save_arrays


def test_a_named_folder_is_made_with_its_parents(tmp_path):
    assert results_folder(tmp_path / "a" / "b", "limit").is_dir()
    assert results_folder(tmp_path / "a" / "b", "limit") == tmp_path / "a" / "b"


def test_default_folders_never_repeat(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folders = {results_folder(None, "limit") for _ in range(5)}
    assert len(folders) == 5
    assert all(folder.is_dir() and folder.parent.name == "results" for folder in folders)


def test_arrays_come_back_from_their_file(tmp_path):
    save_arrays(tmp_path, {"a": np.arange(3), "names": np.array(["x", "y"])})
    with np.load(tmp_path / "result.npz") as arrays:
        np.testing.assert_array_equal(arrays["a"], [0, 1, 2])
        assert list(arrays["names"]) == ["x", "y"]
