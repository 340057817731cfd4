"""The embedded data set: a small world of drawn scenes with everything that pictures and words can be trained on.

Every scene is a function of (seed, split, index): objects of 20 kinds, 10 colours, 3 sizes and 4 fillings on varied
backgrounds, five captions, boxes, phrases, questions, pairs, expressions, four-way choices and an HTML page. What is
said is kept as claims (`claims`) that a program can check against the scene, so words are true by test, not luck.

Read in this order: `world` (what there is), `shapes` and `draw` (how it looks), `words`, `claims`, `phrases` and
`captions` (how it is spoken of), `questions`, `choices` and `pairs` (material for the tasks), `pages` (a web page
around it), `record` (all together).
"""

from crossgrain.data.scenes.draw import draw_scene
from crossgrain.data.scenes.pages import page
from crossgrain.data.scenes.record import scene_record
from crossgrain.data.scenes.world import HELD_OUT, SPLITS, Scene, Thing, make_scene

__all__ = ["HELD_OUT", "SPLITS", "Scene", "Thing", "draw_scene", "make_scene", "page", "scene_record"]
