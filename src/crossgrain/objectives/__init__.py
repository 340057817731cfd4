"""Every objective, by the name a recipe gives it (imported when a recipe asks for it)."""

OBJECTIVES: dict[str, type | str] = {
    "box": "crossgrain.objectives.box:Box",
    "itc": "crossgrain.objectives.itc:ITC",
    "itm": "crossgrain.objectives.itm:ITM",
    "mlm": "crossgrain.objectives.mlm:MLM",
    "ranking": "crossgrain.objectives.ranking:Ranking",
    "region_class": "crossgrain.objectives.region_class:RegionClass",
    "region_feature": "crossgrain.objectives.region_feature:RegionFeature",
}
