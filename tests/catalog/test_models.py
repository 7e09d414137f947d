"""The model catalogue: every entry has its facts, its source and its hub id."""

import pytest

from vramplan.catalog.models import by_hub_id, catalog_config, catalog_entries, catalog_names
from vramplan.errors import UsageError


def test_every_configuration_has_its_provenance_and_the_reverse() -> None:
    assert set(catalog_names()) == set(catalog_entries())
    assert all(entry.source and "/" in entry.hub_id for entry in catalog_entries().values())


def test_hub_ids_lead_to_their_entries_whatever_their_case() -> None:
    assert by_hub_id("meta-llama/Llama-2-7b-hf") == "llama-2-7b"
    assert by_hub_id("Meta-Llama/llama-2-7B-HF") == "llama-2-7b"
    assert by_hub_id("nobody/nothing") is None
    ids = [entry.hub_id.lower() for entry in catalog_entries().values()]
    assert len(set(ids)) == len(ids)


def test_a_configuration_is_a_fresh_copy() -> None:
    catalog_config("gpt2")["n_embd"] = 1
    assert catalog_config("gpt2")["n_embd"] == 768


def test_published_counts() -> None:
    assert catalog_entries()["llama-3.1-405b"].published == 405_853_388_800
    # no exact number was found for StarCoder 2
    assert catalog_entries()["starcoder2-7b"].published is None


def test_an_unknown_name_is_refused_with_the_nearest() -> None:
    with pytest.raises(UsageError, match="unknown model 'llama-2-7' in the catalogue") as refused:
        catalog_config("llama-2-7")
    assert refused.value.hint.startswith("did you mean 'llama-2-7b'?")
