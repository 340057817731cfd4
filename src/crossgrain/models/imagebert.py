"""ImageBERT (Qi et al., 2020, arXiv:2001.07966).

One BERT over [CLS] words [SEP] regions. A region is what a detector, which is not trained along, says of it: a feature
and where it is. All words see all regions and all regions all words, from the first layer on.

The paper has no public code. Where it is silent, this follows UNITER (docs/imagebert.md).

What one pass is asked for: hidden words (objectives/mlm.py), the class and the feature of hidden regions
(objectives/region_class.py, objectives/region_feature.py), and whether text and image belong together
(objectives/itm.py). Which side of a pair is hidden, and which pairs get a wrong text, is the data's.

Shape letters: B pairs, I images, L words, N regions, D width.
"""

from crossgrain.config import Count, configclass
from crossgrain.data.types import Regions
from crossgrain.models.interface import Tokens
from crossgrain.models.single_stream import StreamConfig, StreamModel, rows_of_images
from crossgrain.nn.embeddings import RegionEmbedding

VISUAL = 1  # segment of regions; words have segment 0


class ImageBERT(StreamModel):
    """The body: words and regions as tokens of one sequence."""

    reads = "regions"

    @configclass
    class Config(StreamConfig):
        feature_dim: Count = 2048
        # Region 0 is the whole image (`regions.whole_image` in a recipe), its feature the mean of the others: the
        # paper's ablation of a global image feature, from which it found no clear gain.
        global_feature: bool = False
        # UNITER's normalisation of features and locations before they are summed; the paper's sum has none.
        normalised_parts: bool = False

        @property
        def whole_image_first(self) -> bool:
            """Whether region 0 is the whole image."""
            return self.global_feature

    def __init__(self, config: Config):
        super().__init__(config)
        c = config
        self.config = c
        self.feature_dim = c.feature_dim
        self.region_embedding = RegionEmbedding(
            c.dim,
            feature_dim=c.feature_dim,
            global_feature=c.global_feature,
            normalised_parts=c.normalised_parts,
            dropout=c.dropout,
        )
        self.initialise(c, self.region_embedding)

    def new_parameters(self) -> set[str]:
        """What BERT has not: the embedding of regions. Their segment is BERT's second."""
        return {name for name, _ in self.named_parameters() if name.startswith("region_embedding.")}

    def encode_image(self, image: Regions) -> Tokens:
        """(B, N, D): the regions of each pair's image, projected once for each image."""
        x = self.region_embedding(image, self.text_embedding.segment.weight[VISUAL])
        return rows_of_images(x, image.mask, image.image)
