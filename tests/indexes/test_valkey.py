"""The Valkey module on real servers: commands, time limits, errors, recovery, replicas, cluster, TLS."""

import socket
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from django.test import override_settings
from valkey import ValkeyCluster
from valkey._parsers import _LibvalkeyParser
from valkey.cluster import ClusterParser

from indexes import search, valkey
from indexes.commands import IndexState, SearchCommand
from indexes.errors import (
    SearchError,
    SearchIndexMissing,
    SearchRejected,
    SearchTimeout,
    SearchUnavailable,
)
from indexes.schema import LiveIndex
from indexes.valkey import VersionedDocument
from indexes.valkey_connections import time_limit
from indexes.valkey_errors import translated
from tests.indexes.conftest import direction, item_hash, spec_of
from tests.indexes.servers import PrivateServer, cluster_node, form_cluster

SPEC = spec_of()
# Far above the time limits that tests give, for busy machines, and far below the default ones.
PATIENCE_S = 3.0


def load(name: str, count: int = 5, prefix: str = "") -> LiveIndex:
    """An index of that name on the server in use, with items 0, 1, 2, …"""
    live = LiveIndex(label=name, index_name=name, key_prefix=prefix or f"{name}:", spec=SPEC)
    valkey.create_index(name, live.key_prefix, SPEC)
    valkey.write_hashes(
        (f"{live.key_prefix}{n}", item_hash(SPEC, direction(n), {"price": n, "brand": "acme"}))
        for n in range(count)
    )
    settled(name)
    return live


def settled(name: str) -> IndexState:
    """The state of an index once the engine has gone through what is there."""
    until = time.monotonic() + 10
    while not (state := valkey.index_info(name)).ready:
        assert time.monotonic() < until, "the engine did not finish"
        time.sleep(0.01)
    return state


def nearest(live: LiveIndex, timeout_s: float = 2.0) -> list[str]:
    found = search.knn(live, direction(0), k=2, fields=["price"], timeout_s=timeout_s)
    return [hit.id for hit in found.hits]


@pytest.fixture
def server(tmp_path: Path) -> Iterator[PrivateServer]:
    server = PrivateServer(tmp_path / "server")
    yield server
    server.stop()


def test_an_index_lives_and_goes(namespace: str):
    name = f"{namespace}_one"
    assert valkey.create_index(name, f"{namespace}:one:", SPEC) is True
    try:
        # A build that was interrupted after FT.CREATE finds its own index.
        assert valkey.create_index(name, f"{namespace}:one:", SPEC) is False
        valkey.write_hashes([(f"{namespace}:one:1", item_hash(SPEC, direction(0), {"price": 1}))])
        state = settled(name)
        assert (state.num_docs, state.percent, state.failures) == (1, 1.0, 0)
    finally:
        assert valkey.drop_index(name) is True
    assert valkey.drop_index(name) is False
    with pytest.raises(SearchIndexMissing):
        valkey.index_info(name)


def test_dropping_an_index_keeps_its_keys(namespace: str, valkey: object):
    from indexes import valkey as module

    name, key = f"{namespace}_keep", f"{namespace}:keep:1"
    module.create_index(name, f"{namespace}:keep:", SPEC)
    module.write_hashes([(key, item_hash(SPEC, direction(0), {"price": 1}))])
    module.drop_index(name)
    assert module.hash_fields([key], ["price"]) == [[b"1"]]


def test_hashes_are_written_and_read(namespace: str):
    # More than one pipeline by number, and by size.
    small = {f"{namespace}:s:{n}": {"n": str(n), "text": "é"} for n in range(450)}
    large = {f"{namespace}:l:{n}": {"n": str(n), "blob": b"\x00" * 300_000} for n in range(9)}
    written = valkey.write_hashes([*small.items(), *large.items()])
    assert written == 459
    keys = [*small, f"{namespace}:nosuch", *large]
    rows = valkey.hash_fields(keys, ["n", "nosuch"])
    numbers = [*range(450), None, *range(9)]
    assert rows == [[None if n is None else str(n).encode(), None] for n in numbers]
    assert valkey.hash_fields([], ["n"]) == []
    assert valkey.hash_fields(["a", "b"], []) == [[], []]
    assert valkey.write_hashes([]) == 0


def test_a_failed_write_is_an_error(namespace: str):
    valkey.writer().set(f"{namespace}:text", "not a hash")
    items = [(f"{namespace}:{n}", {"a": "b"}) for n in range(300)]
    with pytest.raises(SearchRejected, match="WRONGTYPE"):
        valkey.write_hashes([*items, (f"{namespace}:text", {"a": "b"})])


@pytest.mark.parametrize("sign", ["*", "?", "[ab]", "\\", "^", "plain"])
def test_only_keys_of_the_prefix_are_removed(namespace: str, sign: str):
    kept = [f"{namespace}:other", f"{namespace}:xa:1", f"{namespace}:a:1"]
    gone = [f"{namespace}:{sign}:{n}" for n in range(450)]
    valkey.write_hashes((key, {"a": "b"}) for key in [*kept, *gone])
    assert valkey.delete_prefix(f"{namespace}:{sign}:") is True
    assert valkey.hash_fields(kept, ["a"]) == [[b"b"]] * 3
    assert valkey.hash_fields(gone, ["a"]) == [[None]] * 450


def test_a_removal_ends_in_time_and_goes_on_where_it_is_called_again(namespace: str):
    keys = [f"{namespace}:{n}" for n in range(1000)]
    valkey.write_hashes((key, {"a": "b"}) for key in keys)

    def left() -> int:
        return sum(held == [b"b"] for held in valkey.hash_fields(keys, ["a"], fresh=True))

    assert valkey.delete_prefix(f"{namespace}:", seconds=0) is False
    # A node of a cluster may hold less than a step takes.
    assert 1000 - valkey.REMOVE_KEYS <= left() < 1000
    turns = 0
    while not valkey.delete_prefix(f"{namespace}:", seconds=0):
        turns += 1
    assert left() == 0
    assert turns >= 9


def test_a_document_only_moves_forward(namespace: str):
    document = VersionedDocument(f"{namespace}:document")
    assert (document.version(), document.read()) == (None, None)
    assert document.publish(3, b"three \x00\xff") is True
    assert document.publish(3, b"another three") is False
    assert document.publish(2, b"two") is False
    assert (document.version(), document.read()) == (3, (3, b"three \x00\xff"))
    assert document.publish(10, b"ten") is True
    assert document.read() == (10, b"ten")


def test_a_raced_document_ends_at_the_newest(namespace: str):
    document = VersionedDocument(f"{namespace}:race")
    threads = [
        threading.Thread(target=document.publish, args=(n, str(n).encode())) for n in range(1, 21)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert document.read() == (20, b"20")


def test_the_server_tells_what_it_is():
    assert valkey.ping() is True
    facts = valkey.server_facts()
    assert facts.name in ("redisearch", "valkey-search")
    assert len(facts.version.split(".")) == 3


def test_a_server_that_hides_its_modules_tells_its_engine(server: PrivateServer):
    with server.in_use() as own:
        version = valkey.server_facts().version
        own.execute_command("ACL", "SETUSER", "default", "-module")
        hidden = valkey.server_facts()
    assert hidden.name in ("redisearch", "valkey-search")
    assert (hidden.version, version != "") == ("", True)


@pytest.mark.parametrize("cluster", [False, True])
def test_a_server_that_is_away(cluster):
    with override_settings(VALKEY_URL="valkey://127.0.0.1:1/0", VALKEY_CLUSTER=cluster):
        assert valkey.ping() is False
        for ask in (
            lambda: valkey.index_info("x"),
            lambda: valkey.create_index("x", "x:", SPEC),
            lambda: valkey.write_hashes([("x", {"a": "b"})]),
            lambda: valkey.hash_fields(["x"], ["a"]),
            lambda: valkey.delete_prefix("x"),
            lambda: valkey.server_facts(),
            lambda: VersionedDocument("x").publish(1, b""),
            lambda: VersionedDocument("x").version(),
        ):
            with pytest.raises(SearchUnavailable, match="cannot be reached"):
                ask()


# The exact wordings of valkey-search 1.2.1 and RediSearch 2.10.5, and of Valkey itself.
@pytest.mark.parametrize(
    ("message", "expected"),
    [
        ("Index with name 'nope' not found in database 0", SearchIndexMissing),
        ("nope: no such index", SearchIndexMissing),
        ("Unknown index name", SearchIndexMissing),
        ("Unknown Index name", SearchIndexMissing),
        ("Index idx in database 0 already exists.", SearchRejected),
        ("Index field `score` does not exist", SearchRejected),
        ("Invalid filter expression: `@cat:{a`. Missing closing TAG bracket, '}'", SearchRejected),
        ("Syntax error at offset 6 near a", SearchRejected),
        ("Search operation cancelled due to timeout", SearchTimeout),
        ("Index or slot consistency check failed", SearchUnavailable),
        ("OOM command not allowed when used memory > 'maxmemory'.", SearchUnavailable),
        ("LOADING Valkey is loading the dataset in memory", SearchUnavailable),
        ("READONLY You can't write against a read only replica.", SearchUnavailable),
        ("MASTERDOWN Link with MASTER is down", SearchUnavailable),
        ("CLUSTERDOWN The cluster is down", SearchUnavailable),
        ("MOVED 1 127.0.0.1:7000", SearchUnavailable),
        ("TRYAGAIN Multiple keys request during rehashing of slot", SearchUnavailable),
        ("BUSY Valkey is busy running a script.", SearchUnavailable),
        ("NOPERM User x has no permissions to run the 'ft.search' command", SearchRejected),
    ],
)
@pytest.mark.parametrize("parser", [_LibvalkeyParser, ClusterParser])
def test_error_replies_are_told_apart_by_meaning(
    message: str, expected: type[SearchError], parser: type[_LibvalkeyParser]
):
    with pytest.raises(SearchError) as caught, translated():
        raise parser.parse_error(message)
    assert type(caught.value) is expected
    # The client takes some codes off.
    assert message.split()[-1] in str(caught.value) or expected is SearchTimeout


def test_a_query_the_engine_refuses_shows_its_words(namespace: str):
    live = load(f"{namespace}_refused")
    try:
        with pytest.raises(SearchRejected, match=r"refused the command: .+"):
            valkey.search(
                SearchCommand(index=live.index_name, query="(@brand:{", limit=1), timeout_s=2
            )
    finally:
        valkey.drop_index(live.index_name)


def test_a_slow_server_costs_no_more_than_the_time_given(server: PrivateServer):
    with server.in_use():
        live = load("slow")
        assert nearest(live) == ["0", "1"]
        with server.frozen():
            started = time.monotonic()
            for ask in (
                lambda: nearest(live, timeout_s=0.05),
                lambda: search.vectors(live, ["0", "1"], timeout_s=0.05),
                lambda: valkey.index_info("slow", timeout_s=0.05),
            ):
                with pytest.raises(SearchTimeout):
                    ask()
            assert valkey.ping(0.05) is False
            assert time.monotonic() - started < PATIENCE_S
        # Answers that came too late must not be taken for those of later calls.
        assert [search.vectors(live, [str(n)], timeout_s=2).keys() for n in range(3)] == [
            {"0"},
            {"1"},
            {"2"},
        ]
        assert nearest(live) == ["0", "1"]


@pytest.mark.parametrize("cluster", [False, True])
def test_a_server_that_takes_no_connection_costs_no_more_than_the_time_given(cluster: bool):
    # A full backlog: connecting neither succeeds nor fails.
    with socket.create_server(("127.0.0.1", 0), backlog=0) as listener, ExitStack() as held:
        address = listener.getsockname()
        for _ in range(4):
            filler = held.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex(address)
        url = f"valkey://127.0.0.1:{address[1]}/0"
        with override_settings(VALKEY_URL=url, VALKEY_CLUSTER=cluster):
            started = time.monotonic()
            with pytest.raises(SearchTimeout):
                search.vectors(
                    LiveIndex(label="x", index_name="x", key_prefix="x:", spec=SPEC),
                    ["1"],
                    timeout_s=0.1,
                )
            assert time.monotonic() - started < PATIENCE_S


def test_time_limits_nest():
    with pytest.raises(SearchTimeout), time_limit(0):
        valkey.hash_fields(["x"], ["a"], timeout_s=10)
    assert valkey.ping() is True


def test_a_restart_is_recovered_from_without_an_error(server: PrivateServer):
    with server.in_use():
        live = load("restarted")
        # Several connections lie in the pool, all broken by the restart.
        threads = [threading.Thread(target=nearest, args=(live,)) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        server.stop()
        with pytest.raises(SearchUnavailable):
            nearest(live)
        server.start()
        assert [nearest(live) for _ in range(10)] == [["0", "1"]] * 10
        assert valkey.write_hashes([("restarted:9", {"price": "9"})]) == 1


def test_connections_that_die_in_use_are_replaced(server: PrivateServer):
    with server.in_use() as own:
        live = load("killed")
        for _ in range(5):
            assert nearest(live) == ["0", "1"]
            own.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")


def test_a_full_server(server: PrivateServer):
    with server.in_use() as own:
        own.config_set("maxmemory", "1")
        with pytest.raises(SearchUnavailable, match="maxmemory"):
            valkey.write_hashes([("full:1", {"a": "b"})])
        with pytest.raises(SearchUnavailable, match="maxmemory"):
            valkey.create_index("full", "full:", SPEC)


@pytest.mark.parametrize("cluster", [False, True])
def test_a_wrong_password_names_the_setting(server: PrivateServer, cluster: bool):
    wrong = server.url.replace("valkey://:", "valkey://:x")
    with override_settings(VALKEY_URL=wrong, VALKEY_CLUSTER=cluster):
        with pytest.raises(SearchUnavailable, match="VALKEY_URL") as caught:
            valkey.index_info("any")
        assert wrong.split("@", maxsplit=1)[0].removeprefix("valkey://:") not in str(caught.value)


def test_a_server_that_is_no_cluster_names_the_setting(server: PrivateServer):
    with (
        server.in_use(VALKEY_CLUSTER=True),
        pytest.raises(SearchUnavailable, match="Unset VALKEY_CLUSTER"),
    ):
        valkey.index_info("any")


def test_a_server_without_vector_search_says_what_to_load(tmp_path: Path):
    server = PrivateServer(tmp_path, search=False)
    try:
        with server.in_use():
            assert valkey.server_facts().name is None
            with pytest.raises(SearchRejected, match="valkey-search"):
                valkey.create_index("x", "x:", SPEC)
    finally:
        server.stop()


def test_reads_go_to_a_replica_and_come_back_when_it_dies(server: PrivateServer, tmp_path: Path):
    replica = PrivateServer(tmp_path / "replica")
    try:
        with server.in_use(VALKEY_REPLICA_URLS=[replica.url]) as primary, replica.connect() as own:
            own.config_set("primaryauth", server.url.split(":")[2].split("@")[0])
            primary.config_set("repl-diskless-sync-delay", "0")
            own.replicaof("127.0.0.1", str(server.port))
            until = time.monotonic() + 10
            while own.info("replication")["master_link_status"] != "up":
                assert time.monotonic() < until, "the replica did not catch up"
                time.sleep(0.02)
            live = load("replicated")
            document = VersionedDocument("document")
            document.publish(1, b"one")
            assert primary.wait(1, 4000) == 1

            # Only the replica has it: a reader sees it, a fresh read does not.
            own.config_set("replica-read-only", "no")
            own.hset("replicated:only", "price", "1")
            assert valkey.hash_fields(["replicated:only"], ["price"]) == [[b"1"]]
            assert valkey.hash_fields(["replicated:only"], ["price"], fresh=True) == [[None]]
            own.hset("document", "version", "99")
            assert document.version() == 1
            own.execute_command("FT.DROPINDEX", "replicated")
            assert nearest(live) == ["0", "1"]

            replica.stop()
            assert nearest(live) == ["0", "1"]
            server.stop()
            replica.start()
            # The primary is away: what the replica has is served.
            assert list(search.vectors(live, ["0"], timeout_s=2)) == ["0"]
            assert document.read() is not None
            with pytest.raises(SearchUnavailable):
                document.publish(100, b"new")
    finally:
        replica.stop()


def test_a_replica_named_as_the_server_refuses_writes(server: PrivateServer):
    with server.in_use() as own:
        own.replicaof("127.0.0.1", "1")
        with pytest.raises(SearchUnavailable):
            valkey.write_hashes([("x", {"a": "b"})])


class TestCluster:
    @pytest.fixture(scope="class")
    @classmethod
    def addresses(cls, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, str]]:
        """Two clusters: one of two nodes, and one of a single node, on which RediSearch can search."""
        servers = [
            cluster_node(tmp_path_factory.mktemp(f"node{n}"), search=n == 2) for n in range(3)
        ]
        yield form_cluster(servers[:2]), form_cluster(servers[2:])
        for server in servers:
            server.stop()

    def test_keys_on_several_nodes(self, addresses: tuple[str, str]):
        with override_settings(VALKEY_URL=addresses[0], VALKEY_CLUSTER=True):
            keys = [f"many:{n}" for n in range(450)]
            assert valkey.write_hashes((key, {"n": key}) for key in keys) == 450
            assert valkey.hash_fields(keys, ["n"]) == [[key.encode()] for key in keys]
            cluster = valkey.writer()
            assert isinstance(cluster, ValkeyCluster)
            sizes = [node.valkey_connection.dbsize() for node in cluster.get_primaries()]
            assert min(sizes) > 0
            assert valkey.delete_prefix("many:", seconds=0) is False
            assert valkey.delete_prefix("many:") is True
            assert valkey.hash_fields(keys, ["n"]) == [[None]] * 450
            document = VersionedDocument("document")
            assert document.publish(1, b"one") is True
            assert document.read() == (1, b"one")
            assert valkey.ping() is True
            with pytest.raises(SearchTimeout):
                valkey.hash_fields(keys, ["n"], timeout_s=0)

    def test_a_slot_that_moved_is_followed(self, addresses: tuple[str, str]):
        with override_settings(VALKEY_URL=addresses[0], VALKEY_CLUSTER=True):
            valkey.ping()
            cluster = valkey.writer()
            assert isinstance(cluster, ValkeyCluster)
            nodes = [node.valkey_connection for node in cluster.get_primaries()]
            names = [node.execute_command("CLUSTER MYID") for node in nodes]
            for number in range(4):
                key = f"moving:{number}"
                new = names[number % 2]
                for node in nodes:
                    slot = cluster.keyslot(key)
                    node.execute_command("CLUSTER SETSLOT", slot, "NODE", new)
                if number < 2:
                    assert valkey.hash_fields([key], ["a"]) == [[None]]
                else:
                    assert valkey.write_hashes([(key, {"a": "b"})]) == 1

    def test_a_cluster_that_is_not_said_to_be_one_names_the_setting(
        self, addresses: tuple[str, str]
    ):
        items = [(f"many:{n}", {"n": "1"}) for n in range(50)]
        with (
            override_settings(VALKEY_URL=addresses[0], VALKEY_CLUSTER=False),
            pytest.raises(SearchUnavailable, match="set VALKEY_CLUSTER=1"),
        ):
            valkey.write_hashes(items)

    def test_search(self, addresses: tuple[str, str]):
        with override_settings(VALKEY_URL=addresses[1], VALKEY_CLUSTER=True):
            live = load("clustered")
            # On a cluster RediSearch alone tells how many there are, and not which.
            command = SearchCommand(index=live.index_name, query="(@brand:{acme})", limit=0)
            assert valkey.search(command, timeout_s=2)[0] == 5
            assert valkey.index_info("clustered").num_docs == 5
            assert valkey.server_facts().name is not None
            assert list(search.vectors(live, ["1", "x"], timeout_s=2)) == ["1"]
            valkey.drop_index("clustered")
            with pytest.raises(SearchIndexMissing):
                nearest(live)


class TestTLS:
    @pytest.fixture
    def secured(self, server: PrivateServer, tmp_path: Path) -> Iterator[tuple[str, Path]]:
        """A TLS door in front of the server: its address and the certificate to trust."""
        certificate, chain = tmp_path / "ca.pem", tmp_path / "chain.pem"
        make_certificate(certificate, chain)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(chain)
        with socket.create_server(("127.0.0.1", 0)) as listener:
            threading.Thread(
                target=forward_all, args=(listener, context, server.port), daemon=True
            ).start()
            port = listener.getsockname()[1]
            address = server.url.replace("valkey://", "valkeys://", 1)
            yield address.replace(f":{server.port}/", f":{port}/"), certificate

    def test_a_trusted_server(self, secured: tuple[str, Path]):
        address, certificate = secured
        url = f"{address}?ssl_ca_certs={certificate}"
        with override_settings(VALKEY_URL=url, VALKEY_CLUSTER=False):
            assert valkey.ping() is True
            live = load("secured")
            assert nearest(live) == ["0", "1"]

    def test_the_certificate_has_to_name_the_host(self, secured: tuple[str, Path]):
        address, certificate = secured
        url = f"{address.replace('127.0.0.1', 'localhost')}?ssl_ca_certs={certificate}"
        with (
            override_settings(VALKEY_URL=url, VALKEY_CLUSTER=False),
            pytest.raises(SearchUnavailable, match="certificate"),
        ):
            valkey.index_info("any")
        with override_settings(VALKEY_URL=f"{url}&ssl_check_hostname=false", VALKEY_CLUSTER=False):
            assert valkey.ping() is True

    def test_a_server_that_nobody_vouches_for(self, secured: tuple[str, Path]):
        address, _ = secured
        with (
            override_settings(VALKEY_URL=address, VALKEY_CLUSTER=False),
            pytest.raises(SearchUnavailable, match="certificate"),
        ):
            valkey.index_info("any")


def make_certificate(certificate: Path, chain: Path) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.now(UTC)
    signed = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(IPv4Address("127.0.0.1"))]), critical=False
        )
        .not_valid_before(now - timedelta(minutes=5))
        .not_valid_after(now + timedelta(days=1))
        .sign(key, hashes.SHA256())
    )
    public = signed.public_bytes(serialization.Encoding.PEM)
    certificate.write_bytes(public)
    private = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    chain.write_bytes(private + public)


def forward_all(listener: socket.socket, context: ssl.SSLContext, port: int) -> None:
    with suppress(OSError):
        while True:
            plain, _ = listener.accept()
            threading.Thread(target=forward, args=(plain, context, port), daemon=True).start()


def forward(plain: socket.socket, context: ssl.SSLContext, port: int) -> None:
    with suppress(OSError):
        outside = context.wrap_socket(plain, server_side=True)
        inside = socket.create_connection(("127.0.0.1", port))
        back = threading.Thread(target=pump, args=(inside, outside), daemon=True)
        back.start()
        pump(outside, inside)


def pump(source: socket.socket, target: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(65536):
            target.sendall(data)
