"""Kinds without an expert, and why."""

_LOOKS = "what has to be told apart (a color, a shape, a place) is seen and not in the tree"
_POINTS = "needs the mouse at places, and actions name elements alone"
_MOVES = "has to be followed while it moves"
_WORDS = "its goals are free sentences, or need words to be understood"
_NEXT = "can be done by such actions, and has not been written"

LEFT_OUT = {
    "bisect-angle": _POINTS,
    "book-flight": _NEXT,
    "book-flight-nodelay": _NEXT,
    "chase-circle": _MOVES,
    "circle-center": _POINTS,
    "click-checkboxes-soft": _WORDS,
    "click-color": _LOOKS,
    "click-menu-2": "half of its goals show a picture",
    "click-pie-nodelay": "an item that is chosen from the start does not take a click (16 of 20 seeds)",
    "click-shades": _LOOKS,
    "click-shape": _LOOKS,
    "click-widget": "a textarea and a text field look alike in the tree (17 of 20 seeds)",
    "count-shape": _LOOKS,
    "count-sides": _LOOKS,
    "daily-calendar": _NEXT,
    "drag-circle": _POINTS,
    "drag-cube": _POINTS,
    "drag-items-grid": "what an item is dragged past moves too (18 of 20 seeds)",
    "drag-shapes": _LOOKS,
    "drag-shapes-2": _LOOKS,
    "drag-single-shape": _POINTS,
    "draw-circle": _POINTS,
    "draw-line": _POINTS,
    "email-inbox-forward-nl": _WORDS,
    "email-inbox-forward-nl-turk": _WORDS,
    "email-inbox-nl-turk": _WORDS,
    "find-midpoint": _POINTS,
    "highlight-text": _POINTS,
    "highlight-text-2": _POINTS,
    "hot-cold": _LOOKS,
    "hover-shape": _MOVES,
    "identify-shape": _LOOKS,
    "moving-items": _MOVES,
    "number-checkboxes": "the digit is shown in a picture",
    "resize-textarea": _POINTS,
    "right-angle": _POINTS,
    "simon-says": "shown by colors, for moments",
    "terminal": _NEXT,
    "text-editor": "its buttons are pictures without names",
    "tic-tac-toe": _NEXT,
    "use-colorwheel": "colors are seen",
    "use-colorwheel-2": "colors are seen",
    "visual-addition": _LOOKS,
}
"""Kind -> reason."""
