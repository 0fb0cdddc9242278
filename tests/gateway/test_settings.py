"""Options: where each comes from, what wins, and what is refused in words."""

from pathlib import Path

import pytest

from portico_gateway.errors import BadRequest
from portico_gateway.settings import Secret, Settings, load, to_environment


def test_command_line_beats_variable_beats_file_beats_default(tmp_path: Path) -> None:
    (tmp_path / "portico.toml").write_text('lifespan_hours = 3\nlog_level = "debug"\nlisten = "127.0.0.1:1"\n')
    environ = {"PORTICO_DATA": str(tmp_path), "PORTICO_LOG_LEVEL": "warning", "PORTICO_LISTEN": "127.0.0.1:2"}
    settings = load({"listen": "127.0.0.1:3"}, environ)
    assert (settings.lifespan_hours, settings.log_level, settings.listen_port) == (3, "warning", 3)
    assert settings.studio_quota == Settings().studio_quota
    assert settings.data == tmp_path


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("colour = 3\n", "colour"),
        ("this is no toml", "portico.toml"),
        ('lifespan_hours = "soon"\n', "lifespan_hours"),
    ],
)
def test_a_wrong_file_is_refused_with_the_name_of_what_is_wrong(tmp_path: Path, text: str, names: str) -> None:
    (tmp_path / "portico.toml").write_text(text)
    with pytest.raises(BadRequest, match=names):
        load({"data": tmp_path}, {})


@pytest.mark.parametrize("listen", ["8000", "127.0.0.1:0", "127.0.0.1:port", ":8000", "127.0.0.1:70000"])
def test_an_address_that_is_none_is_refused(tmp_path: Path, listen: str) -> None:
    with pytest.raises(BadRequest, match="HOST:PORT"):
        load({"data": tmp_path, "listen": listen}, {})


def test_plain_http_is_refused_for_names_on_which_browsers_drop_our_cookies(tmp_path: Path) -> None:
    with pytest.raises(BadRequest, match="TLS"):
        load({"data": tmp_path}, {"PORTICO_HOST": "portico.example.org"})
    behind_tls = {"PORTICO_HOST": "portico.example.org", "PORTICO_PUBLIC_SCHEME": "https", "PORTICO_PUBLIC_PORT": "443"}
    assert load({"data": tmp_path}, behind_tls).base_url == "https://portico.example.org"


@pytest.mark.parametrize(
    "wrong", [{"PORTICO_ISOLATION": "some"}, {"PORTICO_COMPUTE": "cloud"}, {"PORTICO_PUBLIC_SCHEME": "ftp"}]
)
def test_a_value_out_of_its_set_is_refused(tmp_path: Path, wrong: dict[str, str]) -> None:
    with pytest.raises(BadRequest):
        load({"data": tmp_path}, wrong)


def test_settings_travel_to_children_by_variables_whole(tmp_path: Path) -> None:
    settings = load({"data": tmp_path}, {"PORTICO_S3_SECRET_KEY": "sesame", "PORTICO_CHECKPOINT_INTERVAL": "12.5"})
    assert load({}, to_environment(settings)) == settings
    assert to_environment(settings)["PORTICO_S3_SECRET_KEY"] == "sesame"


def test_a_secret_hides_itself() -> None:
    secret = Secret("sesame")
    assert "sesame" not in f"{secret} {secret!r} {[secret]}"
    assert secret.reveal() == "sesame"


def test_addresses_are_spelt_as_browsers_need_them(tmp_path: Path) -> None:
    settings = load({"data": tmp_path, "listen": "127.0.0.1:8000"}, {})
    assert settings.base_url == "http://portico.localhost:8000"
    assert settings.studio_url("0123abcd") == "http://a0123abcd.studio.localhost:8000"
