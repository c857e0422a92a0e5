"""Fingerprints of backbones follow their files."""

from pathlib import Path

from benchmarks import backbones

VIT = backbones.find("vit-ti")


def test_the_fingerprint_of_a_backbone_follows_its_file(tmp_path):
    path = tmp_path / "vit_tiny_patch16_224.safetensors"
    path.write_bytes(b"one")
    first = VIT.fingerprint(tmp_path)
    path.write_bytes(b"two")
    assert VIT.fingerprint(tmp_path) != first != VIT.fingerprint(None)


def test_a_download_changes_no_fingerprint(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    before = VIT.fingerprint(None)
    downloaded = Path("resources/downloads/vit_tiny_patch16_224.safetensors")
    downloaded.parent.mkdir(parents=True)
    downloaded.write_bytes(b"weights")
    assert VIT.fingerprint(None) == before
