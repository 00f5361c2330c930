"""``type:`` in a config: short names, class names and dotted paths."""

from __future__ import annotations

import sys
import textwrap

import pytest

from ppmtl.config import ConfigError, resolve_part

HEADS = "toyparts.heads"
OPS = "toyparts.ops"


@pytest.mark.usefixtures("toyparts")
def test_a_short_name_is_the_only_class_of_that_file_or_the_one_named_like_it() -> None:
    assert resolve_part(HEADS, "upernet").__name__ == "UPerNet"
    assert resolve_part(HEADS, "csp_pan").__name__ == "CSPPAN"


@pytest.mark.usefixtures("toyparts")
def test_in_a_module_of_many_classes_the_class_name_counts() -> None:
    assert {resolve_part(OPS, name).__name__ for name in ("random_crop", "RandomCrop", "randomcrop")} == {"RandomCrop"}


@pytest.mark.usefixtures("toyparts")
def test_a_dotted_path_reaches_any_class_or_function() -> None:
    assert resolve_part(HEADS, "toyparts.ops.Flip").__name__ == "Flip"
    assert resolve_part(HEADS, "textwrap.dedent") is textwrap.dedent


@pytest.mark.usefixtures("toyparts")
@pytest.mark.parametrize(
    ("package", "name", "problem"),
    [
        (HEADS, "upernt", "unknown type 'upernt'; did you mean 'upernet'? allowed: broken, csp_pan, linear, upernet, "
                          "or a dotted path my_package.module.Class"),
        (HEADS, "_private", "unknown type '_private'; allowed: broken"),
        (HEADS, "../ops", "type '../ops' is not a dotted path; allowed: my_package.module.Class"),
        (HEADS, "", "unknown type ''; allowed: broken"),
        (HEADS, "base", "type 'base': toyparts.heads.base must define one public class, it has A, B"),
        (HEADS, "broken", "type 'broken': cannot import toyparts.heads.broken: No module named 'a_module_nobody_has'"),
        (OPS, "crop", "unknown type 'crop'; did you mean 'RandomCrop'? allowed: Flip, RandomCrop"),
        (OPS, "OrderedDict", "unknown type 'OrderedDict'; allowed: Flip, RandomCrop"),
        (OPS, "transform", "unknown type 'transform'; allowed: Flip, RandomCrop"),
        (HEADS, "nobody.has.This", "type 'nobody.has.This': cannot import nobody.has: No module named 'nobody'; "
                                   "a folder that holds your own code must be on PYTHONPATH"),
        (HEADS, "toyparts.ops.Flop", "type 'toyparts.ops.Flop': toyparts.ops has no 'Flop'; did you mean 'Flip'?"),
        (HEADS, "string.digits", "type 'string.digits' is a str; it must be a class or a function"),
    ],
)  # fmt: skip
def test_a_type_that_cannot_be_found_names_the_nearest_and_the_allowed(package: str, name: str, problem: str) -> None:
    with pytest.raises(ConfigError) as caught:
        resolve_part(package, name)
    assert str(caught.value).startswith(problem)


@pytest.mark.usefixtures("toyparts")
def test_listing_the_names_of_a_folder_imports_none_of_its_modules() -> None:
    with pytest.raises(ConfigError):
        resolve_part(HEADS, "nothing_like_it")
    assert not [name for name in sys.modules if name.startswith("toyparts.heads.")]
