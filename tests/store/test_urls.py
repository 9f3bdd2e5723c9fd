"""Database URLs: whatever driver they are for, and from whatever folder they are meant."""

import os
from pathlib import Path

import pytest
from sqlalchemy import make_url

from jobqueue.store.urls import secrets_of
from jobqueue.errors import ConfigurationError
from jobqueue import paths
from jobqueue.store.urls import as_text, masked, parse

# SQLite


def test_a_relative_path_is_resolved_when_the_url_is_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "away").mkdir()
    monkeypatch.chdir(tmp_path)
    url = parse("sqlite:///some/app.db")
    monkeypatch.chdir("away")
    assert url.database == str(tmp_path / "some/app.db")
    assert parse(url) == parse(as_text(url)) == url
    assert parse("sqlite:///some/app.db").database == str(tmp_path / "away/some/app.db")


def test_what_is_not_a_path_is_not_resolved() -> None:
    assert parse("sqlite:///:memory:").database == ":memory:"
    assert not parse("sqlite://").database


def test_a_relative_path_in_a_folder_that_was_deleted_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    with pytest.raises(ConfigurationError, match="folder was deleted"):
        parse("sqlite:///app.db")
    assert parse(f"sqlite:///{tmp_path}/app.db").database == f"{tmp_path}/app.db"


def test_while_a_child_imports_the_program_a_path_is_meant_from_the_programs_folder(
    tmp_path: Path,
) -> None:
    with paths.meant_from(str(tmp_path)):
        assert parse("sqlite:///app.db").database == str(tmp_path / "app.db")
    assert parse("sqlite:///app.db").database == str(Path.cwd() / "app.db")


@pytest.mark.parametrize("name", ["a?b", "100%", "%41", "a#b", "a b", "é", os.fsdecode(b"\xff")])
def test_a_url_as_text_leads_to_the_same_file_whatever_the_folder_is_named(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path / name)
    url = parse("sqlite:///app.db")
    assert url.database == str(tmp_path / name / "app.db")
    assert parse(as_text(url)) == url


@pytest.mark.parametrize(
    "text",
    [
        "sqlite+pysqlite:///x.db",
        "sqlite+aiosqlite:///x.db?timeout=15",
        "sqlite:///x.db?cache=shared&check_same_thread=False",
        "sqlite:///file:x.db?uri=true",
        "sqlite:///file:x.db?mode=rwc&uri=true&cache=shared",
        "sqlite+aiosqlite:///file:%78.db?uri=1",
    ],
)
def test_forms_for_other_drivers_lead_to_the_same_file(text: str) -> None:
    assert parse(text) == parse("sqlite:///x.db")


def test_a_file_uri_is_read_as_sqlite_reads_it() -> None:
    for uri in ("file:/a/x.db", "file:///a/x.db", "file://localhost/a/x.db", "file:/a/x.db#top"):
        assert parse(f"sqlite:///{uri}?uri=true").database == "/a/x.db"
    assert parse("sqlite:///file:x.db").database == str(Path.cwd() / "file:x.db")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("sqlite:///x.db?nolock=1", "'nolock' is not an option"),
        ("sqlite:///file:x.db?vfs=unix-none&immutable=1&uri=true", "'immutable' and 'vfs' are not"),
        ("sqlite:///file:x.db?mode=ro&uri=true", "writes to its file"),
        ("sqlite:///file:x?mode=memory&uri=true", "writes to its file"),
        ("sqlite:///x.db?uri=true", "begins with file:"),
        ("sqlite:///file://host/x.db?uri=true", "names no host"),
        ("sqlite+pysqlcipher:///x.db", "'pysqlcipher'"),
        ("sqlite://:secret@/x.db", "no user, password or port"),
    ],
)
def test_a_sqlite_url_that_may_mean_another_file_is_refused_by_name(text: str, said: str) -> None:
    with pytest.raises(ConfigurationError, match=said) as refused:
        parse(text)
    assert "secret" not in str(refused.value)


# PostgreSQL

HOST = "postgresql://u:p@h/d"


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("postgres://u:p@h/d", {}),
        ("postgresql+psycopg2://u:p@h/d?client_encoding=utf8", {"client_encoding": "utf8"}),
        ("postgresql+psycopg_async://u:p@h/d?prepare_threshold=0", {}),
        ("postgresql+asyncpg://u:p@h/d?ssl=verify-full", {"sslmode": "verify-full"}),
        ("postgresql+asyncpg://u:p@h/d?ssl=true", {"sslmode": "require"}),
        ("postgresql+asyncpg://u:p@h/d?direct_tls=true", {"sslnegotiation": "direct"}),
        ("postgresql+asyncpg://u:p@h/d?timeout=2.5", {"connect_timeout": "3"}),
        ("postgresql+asyncpg://u:p@h/d?prepared_statement_cache_size=0", {}),
        ("postgresql+asyncpg://u:p@h/d?statement_cache_size=0&command_timeout=5", {}),
        ("postgresql+pg8000://u:p@h/d?application_name=a", {"application_name": "a"}),
        ("postgresql://u:p@h/d?schema=my+app", {"options": '-csearch_path="my\\ app"'}),
        ("postgresql://u:p@h/d?options=-cx%3D1&schema=s", {"options": '-cx=1 -csearch_path="s"'}),
        ("postgresql://u:p@h/d?pgbouncer=true&sslmode=require", {"sslmode": "require"}),
    ],
)
def test_options_of_another_driver_are_carried_over_or_left_out(
    given: str, meant: dict[str, str]
) -> None:
    url = parse(given)
    assert url == make_url(HOST).update_query_dict(meant)
    assert parse(as_text(url)) == url


def test_the_database_may_be_an_option() -> None:
    assert dict(parse("postgresql+asyncpg://u@h?database=d").query) == {"dbname": "d"}
    assert dict(parse("postgresql://?service=mine").query) == {"service": "mine"}


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("nope=hidden", "'nope' is not an option that libpq knows"),
        ("a=hidden&b=hidden", "'a' and 'b' are not options"),
        ("sslmode=hidden", "'sslmode' in the database URL is one of disable, allow"),
        ("ssl=hidden", "'ssl' in the database URL is one of"),
        ("timeout=hidden", "'timeout' in the database URL is a number of seconds"),
        ("connect_timeout=hidden", "'connect_timeout' in the database URL is a whole number"),
        ("target_session_attrs=hidden", "'target_session_attrs'"),
        ("direct_tls=hidden", "true or false"),
        ("port=hidden", "a number from 1 to 65535"),
        ("sslmode=hidden&sslmode=require", "'sslmode' is there more than once"),
        ("schema=hidden&pgbouncer=true", "'schema' cannot be set through a pooler"),
        ("host=a,b&port=1,2,3", "not as many ports as hosts"),
    ],
)
def test_what_cannot_be_connected_is_refused_by_name(query: str, said: str) -> None:
    with pytest.raises(ConfigurationError, match=said) as refused:
        parse(f"{HOST}?{query}")
    assert "hidden" not in str(refused.value)


@pytest.mark.parametrize(
    ("given", "host", "port"),
    [
        ("postgresql://u:p@h1:1,h2:2/d", "h1,h2", "1,2"),
        ("postgresql://u:p@h1,h2/d", "h1,h2", None),
        ("postgresql://u:p@h1,h2:2/d", "h1,h2", ",2"),
        ("postgresql://u:p@[::1]:1,[fe80::2]/d", "::1,fe80::2", "1,"),
        ("postgresql://u:p@%2Ftmp,h2:2/d", "/tmp,h2", ",2"),
        ("postgresql+asyncpg://u:p@/d?host=h1:1&host=h2:2", "h1,h2", "1,2"),
        ("postgresql://u:p@/d?host=h1&host=h2&port=5", "h1,h2", "5,5"),
        ("postgresql://u:p@x:1,y:2/d?host=h1,h2&port=1,2", "h1,h2", "1,2"),
    ],
)
def test_several_hosts_in_any_form_are_the_same(given: str, host: str, port: str | None) -> None:
    url = parse(given)
    assert (url.username, url.password, url.database, url.host) == ("u", "p", "d", None)
    assert (url.query["host"], url.query.get("port")) == (host, port)
    assert parse(as_text(url)) == url


def test_several_hosts_keep_the_other_options_and_a_password_with_a_comma() -> None:
    url = parse("postgresql://u:p,w@h1:1,h2:2/d?target_session_attrs=read-write")
    assert url.password == "p,w"
    assert url.query["target_session_attrs"] == "read-write"
    one = parse("postgresql://u:p,w@h1:1/d")
    assert (one.password, one.host, one.port) == ("p,w", "h1", 1)
    assert parse("postgresql://h1:1,h2:2/d?options=a%40b").query["options"] == "a@b"


@pytest.mark.parametrize("hosts", ["h1:1,h2:x", "h1:1,h2:70000", "h1:0,h2", "::1,::2"])
def test_a_host_among_several_that_cannot_be_one_is_refused(hosts: str) -> None:
    with pytest.raises(ConfigurationError, match="not of the form host:port") as refused:
        parse(f"postgresql://u:hidden@{hosts}/d")
    assert "hidden" not in str(refused.value)


@pytest.mark.parametrize(
    "text",
    [
        "postgresql://u:hidden@h1:1,h2:2/d",
        "postgresql://u:a,hidden@h1:1,h2:2/d?sslpassword=hidden",
        "postgresql+asyncpg://u:hidden@/d?host=h1:1&host=h2:2",
        "postgresql://u@h/d?scram_client_key=hidden&oauth_client_secret=hidden",
    ],
)
def test_no_secret_is_shown(text: str) -> None:
    shown = masked(parse(text))
    assert "hidden" not in shown
    assert "***" in shown
    assert any("hidden" in secret for secret in secrets_of(text))


def test_an_at_sign_in_a_password_shows_none_of_it_in_an_error() -> None:
    text = "sqlite://u:some@hidden@host/x"
    with pytest.raises(ConfigurationError, match=r"'sqlite://u:\*\*\*@host/x' names a host"):
        parse(text)
    assert secrets_of(text) == {"some", "hidden"}


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("postgresql://ada:@h/d", "postgresql://ada@h/d"),
        ("postgresql://ada@h/d", "postgresql://ada@h/d"),
        ("postgresql://ada:x@h/d", "postgresql://ada:***@h/d"),
    ],
)
def test_an_empty_password_is_not_shown_as_a_hidden_one(text: str, shown: str) -> None:
    assert masked(parse(text)) == shown
