"""The checker of annotations that conftest switches on: beartype, to which an int is a float."""

import beartype

check = beartype.beartype(conf=beartype.BeartypeConf(is_pep484_tower=True))
