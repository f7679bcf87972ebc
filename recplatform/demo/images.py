"""Pictures of the demo products: a drawing for each kind of product, tinted with its colour."""

from colorsys import hls_to_rgb, rgb_to_hls
from pathlib import Path

from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import render
from django.views.decorators.cache import cache_control
from django.views.decorators.http import require_safe

from recplatform.demo.catalog import categories

TINTS = {
    "black": "#3b4049",
    "blue": "#3f7fd1",
    "brown": "#9a6a45",
    "green": "#4d9a68",
    "grey": "#8d96a3",
    "navy": "#34508c",
    "orange": "#e8873a",
    "pink": "#e58bab",
    "red": "#d4504b",
    "teal": "#2f9a9a",
    "white": "#f2f3f5",
    "yellow": "#eec143",
}


@require_safe
@cache_control(public=True, max_age=86400, immutable=True)
def image(request: HttpRequest, name: str, tint: str) -> HttpResponse:
    """Return the SVG drawing of that name in that tint, or 404."""
    if tint not in TINTS or name not in {category.image for category in categories()}:
        raise Http404
    main = TINTS[tint]
    palette = {
        "main": main,
        "dark": _lightness(main, 0.72),
        "light": _lightness(main, 1.5, most=0.9),
        "top": _lightness(main, 9, most=0.95, saturation=0.6),
        "bottom": _lightness(main, 9, most=0.87, saturation=0.6),
        "shape": str(Path("demo/images") / f"{name}.svg"),
    }
    return render(request, "demo/images/base.svg", palette, content_type="image/svg+xml")


def _lightness(colour: str, factor: float, *, most: float = 1.0, saturation: float = 1.0) -> str:
    """Return the colour with its lightness multiplied, up to ``most``."""
    red, green, blue = (int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5))
    hue, light, colourful = rgb_to_hls(red, green, blue)
    channels = hls_to_rgb(hue, min(most, light * factor), colourful * saturation)
    return "#" + "".join(f"{round(channel * 255):02x}" for channel in channels)
