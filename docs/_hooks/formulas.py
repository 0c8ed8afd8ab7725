"""Formulas as MathML, written when the site is built: pages need neither scripts nor fonts for them."""

import html
import re

from latex2mathml.converter import convert

# What the extension `arithmatex` makes of \( … \) and \[ … \].
_INLINE = re.compile(r'<span class="arithmatex">\\\((.*?)\\\)</span>', re.DOTALL)
_DISPLAY = re.compile(r'<div class="arithmatex">\s*\\\[(.*?)\\\]\s*</div>', re.DOTALL)

_NAMES = r"<mi>(?:exp|log|sin|cos|tanh|min|max)</mi>"
_THIN = '<mspace width="0.167em" />'
# TeX's spacing where that of MathML differs.
_SPACING = [
    (r"<mo>&#x0002F;</mo>", '<mo lspace="0" rspace="0">/</mo>'),
    (r"<mo>&#x02207;</mo>", '<mi mathvariant="normal">∇</mi>'),
    (r"<mo>&#x02202;</mo>", '<mi mathvariant="normal">∂</mi>'),
    (r"<mi>&#x00394;</mi>", '<mi mathvariant="normal">Δ</mi>'),
    # A sign, not a difference: at the start, or after a relation, an opening bracket or a comma.
    (
        r"(<mrow>|<mo[^>]*>(?:&#x0003D;|=|\(|\[|,|&#x0002C;|&#x02248;|&#x0221D;)</mo>)<mo>&#x02212;",
        r'\1<mo form="prefix">−',
    ),
    (rf"(</m(?:i|n|sub|sup|row|over|frac)>)({_NAMES})", rf"\1{_THIN}\2"),
    (rf"({_NAMES})(<m(?:i|n|s|f|r))", rf"\1{_THIN}\2"),
]


def on_page_content(content: str, **_) -> str:
    """MathML for every formula of a page."""
    content = _DISPLAY.sub(lambda found: f'<div class="formula">{mathml(found[1], "block")}</div>', content)
    return _INLINE.sub(lambda found: mathml(found[1], "inline"), content)


def mathml(formula: str, display: str) -> str:
    """The MathML of a LaTeX formula."""
    written = convert(html.unescape(formula).strip(), display=display)
    for found, better in _SPACING:
        written = re.sub(found, better, written)
    if "\\" in written:
        raise ValueError(f"a formula must hold only commands that MathML has; got {formula.strip()}.")
    return written
