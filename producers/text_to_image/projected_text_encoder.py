"""A text encoder of any width before a linear projection to the width that a UNet attends to.

diffusers opens it by the name of this module, which model_index.json states: a machine that reads such a checkpoint
needs this package. Where the widths agree, a checkpoint has the plain class of transformers instead.
"""

from typing import Any

import torch
from torch import nn

# diffusers looks for PreTrainedModel among the names of this module, to learn that from_pretrained loads the class.
from transformers import MODEL_MAPPING, AutoConfig, AutoModel, PretrainedConfig, PreTrainedModel
from transformers.modeling_outputs import BaseModelOutput

from producers.encoders.assembled.model import TOWER_CLASSES


def is_buildable(config: PretrainedConfig) -> bool:
    """Return whether `build_tower` knows the class of the text model of a configuration."""
    return config.model_type in TOWER_CLASSES or type(config) in MODEL_MAPPING


def build_tower(config: PretrainedConfig) -> PreTrainedModel:
    """Return the text model of a configuration, with random weights from torch's global seed."""
    tower: PreTrainedModel = TOWER_CLASSES.get(config.model_type, AutoModel.from_config)(config)
    return tower


class ProjectedTextEncoderConfig(PretrainedConfig):
    """Configuration of `ProjectedTextEncoder`. config.json stores `model_type`, so it must not change."""

    model_type = "vitrine-projected-text-encoder"

    def __init__(
        self,
        tower: dict[str, Any] | None = None,
        hidden_size: int = 768,
        max_position_embeddings: int = 77,
        use_attention_mask: bool = True,
        **rest: Any,
    ) -> None:
        """Describe the parts.

        Args:
            tower: configuration of the text model, of transformers, with its `model_type`.
            hidden_size: width of the states that are returned.
            max_position_embeddings: most tokens of a sentence.
            use_attention_mask: whether the text model must not attend to padding; StableDiffusionPipeline reads it.
            rest: arguments of PretrainedConfig.
        """
        self.tower = tower or {}
        self.hidden_size, self.max_position_embeddings = hidden_size, max_position_embeddings
        self.use_attention_mask = use_attention_mask
        super().__init__(**rest)


class ProjectedTextEncoder(PreTrainedModel):
    """A text model, and a linear layer after it."""

    config_class = ProjectedTextEncoderConfig

    def __init__(self, config: ProjectedTextEncoderConfig) -> None:
        """Create a model with random weights, drawn from torch's global seed."""
        super().__init__(config)
        tower_config = AutoConfig.for_model(**config.tower)
        self.tower = build_tower(tower_config)
        self.projection = nn.Linear(tower_config.hidden_size, config.hidden_size)
        self.post_init()

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor | None = None, **_: Any) -> BaseModelOutput:
        """Return the states [n, length, hidden_size] as `last_hidden_state`.

        Args:
            input_ids: int64 [n, length].
            attention_mask: 1 for a token and 0 for padding, [n, length]; None attends to all.
        """
        states = self.tower(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        return BaseModelOutput(last_hidden_state=self.projection(states))
