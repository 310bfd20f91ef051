"""Extensions of one's own, one a file: a feature, a base model, an opinion layer, a governor. `docs/extending.md` tells of them."""
