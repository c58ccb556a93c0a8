"""The one style of all figures, as a plotly template: light and dark, over the page's own background."""

from __future__ import annotations

from typing import Any

from emoprobe.viewing import palette

FONT = "system-ui, -apple-system, Segoe UI, Roboto, sans-serif"


def template(dark: bool = False) -> dict[str, Any]:
    """A plotly template as JSON."""
    ink, soft, grid = ("#e3e5ea", "#a6abb5", "#343843") if dark else ("#22252b", "#5d636e", "#e6e7ea")
    axis = {
        "gridcolor": grid,
        "linecolor": soft,
        "zerolinecolor": soft,
        "zerolinewidth": 1,
        "showline": True,
        "ticks": "outside",
        "tickcolor": soft,
        "ticklen": 4,
        "tickfont": {"color": soft},
        "title": {"standoff": 6, "font": {"size": 13}},
        "automargin": True,
        "fixedrange": True,
    }
    colours = palette.scale(palette.DIVERGING_DARK if dark else palette.DIVERGING_LIGHT)
    colorbar = {
        "orientation": "h",
        "thickness": 9,
        "y": -0.2,
        "yanchor": "top",
        "len": 1,
        "outlinewidth": 0,
        "nticks": 5,
        "tickfont": {"color": soft, "size": 12},
    }
    return {
        "layout": {
            "font": {"family": FONT, "size": 13, "color": ink},
            "paper_bgcolor": "rgba(0,0,0,0)",
            "plot_bgcolor": "rgba(0,0,0,0)",
            "margin": {"l": 12, "r": 12, "t": 34, "b": 12},
            "xaxis": {**axis, "zeroline": False},
            "yaxis": axis,
            "legend": {"orientation": "h", "x": 0, "xanchor": "left", "y": -0.25, "yanchor": "top"},
            "hoverlabel": {"align": "left"},
            "hovermode": "closest",
            "dragmode": False,
            "title": {
                "x": 0,
                "xref": "paper",
                "xanchor": "left",
                "y": 0.985,
                "yanchor": "top",
                "font": {"size": 14},
            },
        },
        "data": {"heatmap": [{"type": "heatmap", "colorscale": colours, "colorbar": colorbar}]},
    }
