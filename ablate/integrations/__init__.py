"""Our layers and packed models in other people's code: transformers, Lightning and the Hugging Face hub.

The package itself imports none of it: `import ablate.integrations.transformers` registers a quantizer.
"""
