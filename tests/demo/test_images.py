"""Every picture that a product names is drawn."""

from xml.etree import ElementTree

import pytest

from recplatform.demo.catalog import products


@pytest.mark.parametrize("address", sorted({row["image"] for row in products()}))
def test_each_picture_of_the_catalog_is_an_svg(client, address):
    response = client.get(address)
    assert response.status_code == 200
    assert response["Content-Type"] == "image/svg+xml"
    assert "max-age" in response["Cache-Control"]
    drawing = ElementTree.fromstring(response.content)  # noqa: S314  (our own file)
    assert drawing.tag == "{http://www.w3.org/2000/svg}svg"
    # Background and shadow, and then the thing itself.
    assert len(list(drawing.iter())) > 8


@pytest.mark.parametrize("address", ["tea-plaid.svg", "spaceship-red.svg", "base-red.svg"])
def test_other_pictures_do_not_exist(client, address):
    assert client.get(f"/demo/images/{address}").status_code == 404


def test_tints_differ(client):
    red, blue = (client.get(f"/demo/images/tea-{tint}.svg").content for tint in ("red", "blue"))
    assert red != blue
