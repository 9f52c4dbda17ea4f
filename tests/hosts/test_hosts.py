"""What hosts are made of, without making any."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import yaml

from hosts.cluster_file import for_hosts
from hosts.host import Place, accounts, script
from hosts.network import Network
from hosts.production import exports
from services.ports import LISTEN, host_for

CLUSTER_FILE = Path(__file__).parents[2] / "ray-cluster.yaml"
PLACE = Place(Path("/tmp/it's here"), Path("/tmp/c/state"), Path("/srv/programs/bin"), Path("/tmp/c"))


def test_only_provider_and_login_of_the_cluster_file_are_exchanged() -> None:
    ours, theirs = (
        yaml.safe_load(CLUSTER_FILE.read_text()),
        for_hosts(CLUSTER_FILE, "10.1.1.2", ["10.1.1.3", "10.1.1.4"]),
    )
    made = yaml.safe_load(theirs)
    assert {name for name in ours if ours[name] != made[name]} == {"provider", "auth"} and ours.keys() == made.keys()
    assert made["provider"] == {"type": "local", "head_ip": "10.1.1.2", "worker_ips": ["10.1.1.3", "10.1.1.4"]}


def test_a_cluster_file_for_another_number_of_workers_is_refused() -> None:
    with pytest.raises(ValueError, match="2 workers, not 1"):
        for_hosts(CLUSTER_FILE, "10.1.1.2", ["10.1.1.3"])


def test_a_host_sees_what_its_own_folders_would_cover() -> None:
    lines = script(Path("/tmp/c/head"), "head", "10.1.1.2", PLACE).splitlines()
    assert "mount --bind '/tmp/it'\"'\"'s here' '/mnt/tmp/it'\"'\"'s here'" in lines
    kept, covered = (
        lines.index("mount --bind /tmp/c /mnt/tmp/c"),
        lines.index("mount --rbind /mnt/tmp /tmp"),
    )
    assert kept < covered  # afterwards it would be out of sight
    assert lines[-1].startswith("exec ") and "/tmp/c/head/etc/sshd_config" in lines[-1]
    if not Path(sys.base_prefix).is_relative_to("/tmp"):
        assert not [line for line in lines if line.endswith(f"/tmp{sys.base_prefix}")]


def test_the_environment_is_shared_and_cannot_be_changed_from_a_host() -> None:
    lines = script(Path("/tmp/c/head"), "head", "10.1.1.2", PLACE).splitlines()
    assert "mount -o remount,bind,ro /mnt/home/ray/.intelgraph/venv" in lines
    assert "mount --bind /tmp/c/state /mnt/home/ray/.intelgraph/state" in lines


def test_the_operator_has_neither() -> None:
    assert "/.intelgraph/" not in script(Path("/tmp/c/operator"), "operator", "10.1.1.2", PLACE, node=False)


def test_root_lives_in_the_hosts_own_home_and_sshd_has_a_user() -> None:
    made = accounts("root:x:0:0:root:/root:/bin/zsh\ndaemon:x:1:1::/:/bin/sh\nsshd:x:105:65534::/run/sshd:/bin/false\n")
    lines = made["passwd"].splitlines()
    assert lines[0] == "root:x:0:0:root:/home/ray:/bin/bash" and "daemon:x:1:1::/:/bin/sh" in lines
    assert len([line for line in lines if line.startswith("sshd:")]) == 1
    assert made["shadow"].startswith("root:*:")


def test_two_folders_have_two_networks_with_names_that_fit(tmp_path: Path) -> None:
    one, other = Network(tmp_path / "a", ("head",)), Network(tmp_path / "b", ("head",))
    assert one.bridge != other.bridge and one.bridge == Network(tmp_path / "a", ("head",)).bridge
    assert len(one.cable("head")) <= 15  # the kernel's limit


def test_settings_pass_through_a_shell_as_they_are() -> None:
    assert exports({"A": "it's $HOME", "B": '["x"]'}) == "export A='it'\"'\"'s $HOME'\nexport B='[\"x\"]'\n"


def test_services_listen_on_loopback_unless_their_folder_says_otherwise(tmp_path: Path) -> None:
    assert host_for(tmp_path / "kafka") == "127.0.0.1"
    (tmp_path / LISTEN).write_text("10.1.1.1")
    assert host_for(tmp_path / "kafka") == "10.1.1.1"
