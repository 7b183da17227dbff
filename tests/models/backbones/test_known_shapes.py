"""The shapes that ship, against numbers that were published apart from them."""

import pytest
import torch
from transformers import CONFIG_MAPPING, AutoConfig

from pplr_audit.errors import InputError
from pplr_audit.models.backbones import minilm
from pplr_audit.models.backbones.known_shapes import NAMED
from pplr_audit.models.backbones.transformers_api import from_config


@pytest.mark.parametrize("name", NAMED)
def test_a_shape_adds_up_to_the_published_number_of_weights(name: str) -> None:
    named = NAMED[name]
    with torch.device("meta"):
        model = from_config(CONFIG_MAPPING[named.model_type](**named.config))
    assert sum(p.numel() for p in model.parameters()) == named.parameters


@pytest.mark.parametrize("name", NAMED)
def test_a_shape_says_nothing_that_the_library_does_not_know(name: str) -> None:
    named = NAMED[name]
    known = CONFIG_MAPPING[named.model_type]().to_dict()
    names = {CONFIG_MAPPING[named.model_type].attribute_map.get(field, field) for field in named.config}
    assert names - set(known) - {"head_dim"} == set()


def test_minilm_has_the_shape_of_the_installed_package() -> None:
    try:
        folder = minilm.folder()
    except InputError as error:
        if "not installed" not in str(error):
            raise
        pytest.skip(f"NOT TESTED ON REAL WEIGHTS: {error}")
    config = AutoConfig.from_pretrained(folder, local_files_only=True)
    for field, value in NAMED["minilm"].config.items():
        assert getattr(config, field) == value, field
