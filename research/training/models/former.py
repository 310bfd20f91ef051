"""Former names of model classes: artefacts of version 0.1.0 name the module that held the class then."""

MODULES = {"research.models.": "research.training.models."}


def present(target: str) -> str:
    """Return what `module:Class` is called now.

    >>> present("research.models.xgboost:XGBoost"), present("mine:Forest")
    ('research.training.models.xgboost:XGBoost', 'mine:Forest')
    """
    for then, now in MODULES.items():
        if target.startswith(then):
            return now + target.removeprefix(then)
    return target
