"""The quality of heat maps: form, faithfulness, dependence on learned weights."""
