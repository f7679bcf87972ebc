"""Replicas, failovers, a cluster that loses a primary, TLS and ACL users: real servers, and an address that moves."""

import itertools
import socket
import threading
import time
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pytest
from django.test import override_settings
from kombu import Connection, Exchange, Queue
from valkey import ResponseError
from valkey import Valkey as Client
from valkey.exceptions import NoPermissionError

from indexes import builds, doctor, item_calls, search, valkey
from indexes.errors import SearchError, SearchIndexMissing, SearchUnavailable
from indexes.item_writes import Write, send_surely
from indexes.models import IndexBuild, IndexDefinition, ItemChange
from indexes.schema import EndpointSpec
from indexes.valkey import VersionedDocument
from indexes.valkey_client import confirm_writes, primaries
from tests.fixtures_indexes import insert_definition
from tests.indexes.conftest import direction, item_hash
from tests.indexes.containers import Call, Container, answer
from tests.indexes.item_calls import Model, build_live, row
from tests.indexes.servers import PrivateServer, cluster_node, form_cluster
from tests.indexes.test_valkey import load, nearest

ROWS = 2400
DIMENSION = 8


class Address:
    """The one address of a primary and its replica, such as a managed server's: it can be moved.

    Connections that are there stay where they lead, as they do when a name moves.
    """

    def __init__(self, server: PrivateServer) -> None:
        self.server = server
        self._listener = socket.create_server(("127.0.0.1", 0))
        threading.Thread(target=self._serve, daemon=True).start()
        port = self._listener.getsockname()[1]
        self.url = server.url.replace(f":{server.port}/", f":{port}/")

    def close(self) -> None:
        self._listener.close()

    def _serve(self) -> None:
        with suppress(OSError):
            while True:
                outside, _ = self._listener.accept()
                try:
                    inside = socket.create_connection(("127.0.0.1", self.server.port))
                except OSError:
                    outside.close()
                    continue
                for source, target in ((outside, inside), (inside, outside)):
                    threading.Thread(target=pump, args=(source, target), daemon=True).start()


def pump(source: socket.socket, target: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(1 << 16):
            target.sendall(data)
    for end in (source, target):
        with suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)


def password(server: PrivateServer) -> str:
    return urlsplit(server.url).password or ""


def follow(replica: PrivateServer, primary: PrivateServer) -> None:
    """Make a server the replica of another, with the same password, and wait until it is in step."""
    with primary.connect() as own:
        own.config_set("repl-diskless-sync-delay", "0")
    with replica.connect() as own:
        own.config_set("primaryauth", password(primary))
        own.replicaof("127.0.0.1", str(primary.port))
        own.config_set("requirepass", password(primary))
    replica.url = replica.url.replace(password(replica), password(primary))
    in_step(replica)


def in_step(replica: PrivateServer) -> None:
    until = time.monotonic() + 10
    with replica.connect() as own:
        while own.info("replication").get("master_link_status") != "up":
            assert time.monotonic() < until, "the replica did not catch up"
            time.sleep(0.02)


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[tuple[PrivateServer, PrivateServer]]:
    """A primary and its replica."""
    servers = PrivateServer(tmp_path / "one"), PrivateServer(tmp_path / "two")
    follow(servers[1], servers[0])
    yield servers
    for server in servers:
        server.stop()


@pytest.fixture
def address(pair: tuple[PrivateServer, PrivateServer]) -> Iterator[Address]:
    address = Address(pair[0])
    yield address
    address.close()


def demote(pair: tuple[PrivateServer, PrivateServer], address: Address) -> None:
    """Swap the roles: the old primary stays up as the replica of the new one."""
    primary, replica = pair
    with primary.connect() as old, replica.connect() as new:
        new.replicaof("NO", "ONE")
        old.config_set("primaryauth", password(primary))
        old.replicaof("127.0.0.1", str(replica.port))
    address.server = replica


def kill(pair: tuple[PrivateServer, PrivateServer], address: Address) -> None:
    """End the primary, and let the replica take its place."""
    primary, replica = pair
    primary.stop()
    with replica.connect() as new:
        new.replicaof("NO", "ONE")
    address.server = replica


Failover = Callable[[tuple[PrivateServer, PrivateServer], Address], None]
each_failover = pytest.mark.parametrize("failover", [demote, kill])


class TestReplica:
    def test_reads_go_to_it_and_writes_do_not(self, pair: tuple[PrivateServer, PrivateServer]):
        primary, replica = pair
        with primary.in_use(VALKEY_REPLICA_URLS=[replica.url]) as own, replica.connect() as copy:
            live = load("things")
            assert own.wait(1, 4000) == 1
            own.config_resetstat()
            copy.config_resetstat()
            assert nearest(live) == ["0", "1"]
            assert list(search.vectors(live, ["1"], timeout_s=2)) == ["1"]
            asked: Any = copy.info("commandstats")
            primary_asked: Any = own.info("commandstats")
            assert asked["cmdstat_FT.SEARCH"]["calls"] == 1
            assert "cmdstat_FT.SEARCH" not in primary_asked
            assert valkey.write_hashes([("things:9", {"price": "1"})]) == 1
            price: Any = own.hget("things:9", "price")
            assert price == b"1"

    def test_one_that_hangs_is_not_waited_for_again_and_again(
        self, pair: tuple[PrivateServer, PrivateServer]
    ):
        primary, replica = pair
        with primary.in_use(VALKEY_REPLICA_URLS=[replica.url]) as own:
            live = load("things")
            assert own.wait(1, 4000) == 1
            assert nearest(live) == ["0", "1"]
            with replica.frozen():
                answered = []
                for _ in range(6):
                    with suppress(SearchError):
                        answered.append(nearest(live, timeout_s=0.3))
            # The first calls ran out of time; then the primary was asked at once.
            assert answered == [["0", "1"]] * 3

    def test_one_that_is_behind_lacks_nothing(self, pair: tuple[PrivateServer, PrivateServer]):
        primary, replica = pair
        with primary.in_use(VALKEY_REPLICA_URLS=[replica.url]), replica.connect() as copy:
            # It no longer follows, and answers from what it has.
            copy.replicaof("127.0.0.1", "1")
            live = load("new")
            assert nearest(live) == ["0", "1"]


class TestFailover:
    @each_failover
    def test_serving_and_writing_go_on(
        self, pair: tuple[PrivateServer, PrivateServer], address: Address, failover: Failover
    ):
        with override_settings(VALKEY_URL=address.url, VALKEY_CLUSTER=False):
            live = load("things")
            document = VersionedDocument("document")
            assert document.publish(1, b"one") is True
            # Several connections lie in the pool, and all lead to the old primary.
            threads = [threading.Thread(target=nearest, args=(live,)) for _ in range(6)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            with pair[0].connect() as own:
                assert own.wait(1, 4000) == 1
            failover(pair, address)
            assert nearest(live) == ["0", "1"]
            hashes = [(f"things:n{n}", item_hash(live.spec, direction(n), {})) for n in range(900)]
            assert valkey.write_hashes(hashes) == 900
            assert valkey.create_index("another", "another:", live.spec) is True
            assert document.publish(2, b"two") is True
            with pair[1].connect() as own:
                assert own.exists(*(key for key, _ in hashes)) == 900
                assert own.hget("document", "version") == b"2"

    def test_a_write_that_a_replica_refuses_is_made_at_its_primary(
        self, pair: tuple[PrivateServer, PrivateServer], address: Address
    ):
        with override_settings(VALKEY_URL=address.url, VALKEY_CLUSTER=False):
            assert valkey.drop_index("nosuch") is False
            demote(pair, address)
            # Not repeatable, and yet tried again: the replica has not done it.
            document = VersionedDocument("document")
            assert document.publish(1, b"one") is True
            assert document.read() == (1, b"one")

    def test_writes_are_confirmed_by_replicas(
        self, pair: tuple[PrivateServer, PrivateServer], address: Address
    ):
        with override_settings(VALKEY_URL=address.url, VALKEY_CLUSTER=False):
            before = primaries()
            assert confirm_writes("written", since=before) is True
            with pair[1].frozen():
                valkey.write_hashes([("things:1", {"a": "b"})])
                assert confirm_writes("written", since=before) is False
            demote(pair, address)
            with pytest.raises(SearchUnavailable, match="took over"):
                confirm_writes("written", since=before)
            assert confirm_writes("written", since=primaries()) is True

    def test_changes_that_a_failover_comes_between_are_not_taken_for_sure(
        self, pair: tuple[PrivateServer, PrivateServer], address: Address
    ):
        class Late(Write):
            def commands(self) -> Any:
                demote(pair, address)
                return super().commands()

        with override_settings(VALKEY_URL=address.url, VALKEY_CLUSTER=False):
            change = {"a": "b"}
            send_surely([Write(b"things:1", change)])
            with pytest.raises(SearchUnavailable, match="took over"):
                send_surely([Late(b"things:1", change)])

    @pytest.mark.django_db
    def test_changes_of_items_are_confirmed_by_replicas(
        self,
        pair: tuple[PrivateServer, PrivateServer],
        address: Address,
        define: Callable[..., IndexDefinition],
        model: Model,
    ):
        with override_settings(VALKEY_URL=address.url, VALKEY_CLUSTER=False):
            definition = define()
            build_live(definition)
            waits = confirmations(pair[0])
            item_calls.put("products", [row(1, price=5)])
            assert confirmations(pair[0]) == waits + 1
            # What a call wrote outside of a source, a later build takes over as surely.
            waits = confirmations(pair[0])
            ItemChange.objects.all().delete()
            build_live(definition)
            without = confirmations(pair[0]) - waits
            item_calls.put("products", [row(1, price=5)])
            waits = confirmations(pair[0])
            build_live(definition)
            assert confirmations(pair[0]) - waits == without + 1

    @each_failover
    @pytest.mark.parametrize("at_call", [2, 30])
    @pytest.mark.django_db
    def test_a_build_under_way_ends_with_all_items(
        self,
        pair: tuple[PrivateServer, PrivateServer],
        address: Address,
        failover: Failover,
        at_call: int,
        container: Container,
        catalog_file: Callable[[Iterable[Mapping[str, Any]]], Path],
    ):
        calls = itertools.count(1)

        def respond(call: Call) -> Any:
            # In the middle of a shard, from under the worker.
            if next(calls) == at_call:
                failover(pair, address)
            return answer([vector_of(text) for text in call.body["inputs"]])

        container.respond = respond
        definition = many_items(catalog_file)
        with override_settings(VALKEY_URL=address.url, VALKEY_CLUSTER=False):
            build = builds.start(definition, enqueue=False)
            setbacks = run(build)
            build.refresh_from_db()
            assert build.status in (IndexBuild.Status.LIVE, IndexBuild.Status.READY), build.error
            assert next(calls) > at_call
            assert setbacks >= (failover is kill)
            assert build.written == ROWS
            assert valkey.index_info(build.index_name).num_docs == ROWS
        with pair[1].connect() as own:
            keys = set(own.scan_iter(match=f"{build.key_prefix}*", count=1000))
        assert keys == {f"{build.key_prefix}sku-{n}".encode() for n in range(ROWS)}


def confirmations(primary: PrivateServer) -> int:
    """How often the replicas of a primary were waited for."""
    with primary.connect() as own:
        return int(own.info("commandstats").get("cmdstat_wait", {}).get("calls", 0))


def many_items(catalog_file: Callable[[Iterable[Mapping[str, Any]]], Path]) -> IndexDefinition:
    rows = catalog_file({"id": f"sku-{n}", "title": f"Thing number {n}"} for n in range(ROWS))
    spec = EndpointSpec(slug="e", endpoint_name="e", dimension=DIMENSION, max_batch=64)
    return insert_definition(
        spec,
        rows,
        text_template="{title}",
        fields=[{"name": "title", "type": "stored"}],
        recall_target=0.5,
        min_self_retrieval=0,
    )


def vector_of(text: str) -> list[float]:
    """A vector of its own for each text."""
    vector: list[float] = (
        np.random.default_rng(zlib.crc32(text.encode())).standard_normal(DIMENSION).tolist()
    )
    return vector


def run(build: IndexBuild) -> int:
    """Run a build to its end without its waits; return the turns that set it back."""
    setbacks = 0
    until = time.monotonic() + 60
    while (wait := builds.run(build.pk, seconds=0)) is not None:
        build.refresh_from_db()
        setbacks += "Trying again" in build.notice
        assert time.monotonic() < until, build.notice
        time.sleep(min(wait, 0.05))
    return setbacks


class TestClusterFailover:
    @pytest.fixture
    def cluster(self, tmp_path: Path) -> Iterator[tuple[str, list[PrivateServer]]]:
        """Three primaries of plain Valkey, the last of them with a replica."""
        servers = [cluster_node(tmp_path / f"n{n}", search=False) for n in range(4)]
        url = form_cluster(servers[:3])
        attach(servers[3], servers[2], url)
        yield url, servers
        for server in servers:
            server.stop()

    def test_a_primary_that_dies_is_replaced(self, cluster: tuple[str, list[PrivateServer]]):
        url, servers = cluster
        with override_settings(VALKEY_URL=url, VALKEY_CLUSTER=True):
            keys = [f"many:{n}" for n in range(300)]
            before = primaries()
            assert valkey.write_hashes((key, {"n": key}) for key in keys) == 300
            assert confirm_writes("written", since=before) is True
            servers[2].stop()
            written = wait_for(lambda: valkey.write_hashes((key, {"n": key}) for key in keys))
            assert written == 300
            assert valkey.hash_fields(keys, ["n"]) == [[key.encode()] for key in keys]
            with pytest.raises(SearchUnavailable, match="took over"):
                confirm_writes("written", since=before)

    def test_search_goes_on_at_a_replica_that_took_over(self, tmp_path: Path):
        servers = [cluster_node(tmp_path / f"s{n}", search=True) for n in range(2)]
        try:
            url = form_cluster(servers[:1])
            attach(servers[1], servers[0], url)
            with override_settings(VALKEY_URL=url, VALKEY_CLUSTER=True):
                load("things")
                before = primaries()
                assert confirm_writes("written", since=before) is True
                with Client.from_url(
                    url.replace(str(servers[0].port), str(servers[1].port))
                ) as own:
                    own.execute_command("CLUSTER", "FAILOVER", "TAKEOVER")
                item = [("things:x", {"price": "1"})]
                assert wait_for(lambda: valkey.write_hashes(item)) == 1
                assert not primaries() & before
                assert valkey.index_info("things").num_docs == 6
                assert valkey.drop_index("things") is True
                with pytest.raises(SearchIndexMissing):
                    valkey.index_info("things")
        finally:
            for server in servers:
                server.stop()


def attach(replica: PrivateServer, primary: PrivateServer, url: str) -> None:
    """Let a server join the cluster of that address as the replica of a node of it."""
    secret = urlsplit(url).password or ""
    with replica.connect() as own:
        with Client("127.0.0.1", primary.port, password=secret) as other:
            bus_port = other.config_get("cluster-port")["cluster-port"]
            name = other.execute_command("CLUSTER MYID").decode()
            other.config_set("primaryauth", secret)
        own.config_set("primaryauth", secret)
        own.execute_command("CLUSTER", "MEET", "127.0.0.1", primary.port, bus_port)
        until = time.monotonic() + 20
        while True:
            try:
                own.execute_command("CLUSTER", "REPLICATE", name)
                break
            except ResponseError:
                # The node is not known to it yet.
                assert time.monotonic() < until, "the replica did not join"
                time.sleep(0.05)
        while own.info("replication").get("master_link_status") != "up":
            assert time.monotonic() < until, "the replica did not catch up"
            time.sleep(0.05)
        own.config_set("requirepass", secret)


def wait_for(ask: Callable[[], Any], seconds: float = 25) -> Any:
    """The first answer of a question that servers do not answer for a while."""
    until = time.monotonic() + seconds
    while True:
        try:
            if (found := ask()) is not None:
                return found
        except SearchUnavailable:
            pass
        assert time.monotonic() < until, "the servers did not recover"
        time.sleep(0.2)


class TestAcl:
    """The user of the documents can do what the platform does, and no more."""

    @pytest.fixture
    def user(self, tmp_path: Path) -> Iterator[tuple[str, PrivateServer]]:
        server = PrivateServer(tmp_path / "server")
        make_user(server)
        port = server.port
        yield f"valkey://recplatform:PASSWORD@127.0.0.1:{port}/0", server
        server.stop()

    @pytest.mark.django_db
    def test_it_can_do_all_that_the_platform_does(self, user: tuple[str, PrivateServer]):
        with override_settings(VALKEY_URL=user[0], VALKEY_CLUSTER=False, VALKEY_NAMESPACE="rp"):
            live = load("rp_things_v1", prefix="rp:things:v1:")
            assert nearest(live) == ["0", "1"]
            assert list(search.vectors(live, ["1"], timeout_s=2)) == ["1"]
            assert valkey.server_facts().version
            assert valkey.memory_usage(["rp:things:v1:0"])[0] > 0
            document = VersionedDocument("rp:serving")
            assert document.publish(1, b"one") is True
            assert document.read() == (1, b"one")
            assert confirm_writes("rp:written", since=primaries()) is True
            report = doctor.examine(2, endpoints=False)
            assert report.error == ""
            assert "orphan-index:rp_things_v1" in [finding.key for finding in report.findings]
            assert doctor.repair(doctor.Kind.ORPHAN_INDEX, "rp_things_v1", wait=True)
            assert list(valkey.scan_keys("rp:things:")) in ([[]], [])

    def test_it_can_be_the_broker_of_celery(self, user: tuple[str, PrivateServer]):
        url = user[0].replace("valkey://", "redis://")
        options = {"global_keyprefix": "rp:celery:"}
        with Connection(url, transport_options=options) as connection:
            with connection.SimpleQueue("celery") as tasks:
                tasks.put({"n": 1})
                message = tasks.get(timeout=5)
                assert message.payload == {"n": 1}
                message.ack()
            # Workers talk among themselves this way.
            fanout = Exchange("celery.pidbox", type="fanout")
            heard: list[Any] = []
            queue = Queue("listener", exchange=fanout, auto_delete=True)
            with connection.Consumer(
                queue, callbacks=[lambda body, _: heard.append(body)], no_ack=True
            ):
                with suppress(socket.timeout):
                    connection.drain_events(timeout=0.2)
                connection.Producer().publish({"hello": 1}, exchange=fanout)
                connection.drain_events(timeout=5)
            assert heard == [{"hello": 1}]

    @pytest.mark.parametrize(
        "command",
        [
            ("FLUSHALL",),
            ("KEYS", "*"),
            ("CONFIG", "GET", "*"),
            ("ACL", "LIST"),
            ("SWAPDB", "0", "1"),
            ("SHUTDOWN",),
            ("REPLICAOF", "NO", "ONE"),
            ("HSET", "other:1", "a", "b"),
            ("HGET", "rpx:1", "a"),
        ],
    )
    def test_it_can_do_no_more(self, acl_server: str, command: tuple[str, ...]):
        with Client.from_url(acl_server) as own, pytest.raises(NoPermissionError):
            own.execute_command(*command)

    @pytest.fixture(scope="class")
    @classmethod
    def acl_server(cls, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
        server = PrivateServer(tmp_path_factory.mktemp("acl"))
        make_user(server)
        yield f"valkey://recplatform:PASSWORD@127.0.0.1:{server.port}/0"
        server.stop()

    def test_it_cannot_run_what_ends_the_server(self):
        # A wrong number of arguments to it aborts valkey-search, where categories let it through.
        rules = documented_user()
        assert rules.index("-@search") > max(rules.index(f"+@{name}") for name in ("read", "write"))
        assert [rule for rule in rules if "internal" in rule or rule in ("+@all", "+@search")] == []


def make_user(server: PrivateServer) -> None:
    """Make the user of the documents on a server."""
    with server.connect() as own:
        known = own.execute_command("ACL CAT")
        rules = documented_user()
        own.execute_command(*(rule for rule in rules if rule != "-@search" or b"search" in known))


def documented_user() -> list[str]:
    """The command in docs/operations.md that makes the platform's user."""
    text = (Path(__file__).parents[2] / "docs/operations.md").read_text()
    return next(line for line in text.splitlines() if line.startswith("ACL SETUSER")).split()
