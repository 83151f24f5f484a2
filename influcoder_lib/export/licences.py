"""The licence of an exported dataset, in the identifiers that the Hugging Face hub accepts."""

from collections.abc import Iterable, Mapping

_IDENTIFIERS = """
afl-3.0 agpl-3.0 apache-2.0 artistic-2.0 bigcode-openrail-m bigscience-openrail-m bsd
bsd-2-clause bsd-3-clause bsd-3-clause-clear bsl-1.0 c-uda cc cc-by-2.0 cc-by-2.5 cc-by-3.0
cc-by-4.0 cc-by-nc-2.0 cc-by-nc-3.0 cc-by-nc-4.0 cc-by-nc-nd-3.0 cc-by-nc-nd-4.0
cc-by-nc-sa-2.0 cc-by-nc-sa-3.0 cc-by-nc-sa-4.0 cc-by-nd-4.0 cc-by-sa-3.0 cc-by-sa-4.0 cc0-1.0
cdla-permissive-1.0 cdla-permissive-2.0 cdla-sharing-1.0 ecl-2.0 epl-1.0 epl-2.0 etalab-2.0
eupl-1.1 gemma gfdl gpl gpl-2.0 gpl-3.0 isc lgpl lgpl-2.1 lgpl-3.0 lgpl-lr llama2 mit mpl-2.0
ms-pl ncsa odbl odc-by ofl-1.1 openrail openrail++ osl-3.0 pddl postgresql unlicense wtfpl zlib
"""
HUB_IDENTIFIERS = frozenset(_IDENTIFIERS.split())
"""Any other licence is `other` to the hub, and is spelt out in the card."""

OTHER = {"license": "other", "license_name": "see-sources"}


def hub_licence(sources: Iterable[str | None], licences: Mapping[str, str]) -> dict[str, str]:
    """The metadata keys that state one licence for a dataset made of several sources.

    One identifier if all sources have the very same licence and the hub knows it; nothing if no
    source has a licence; else `other`.
    """
    given = {licences.get(source) if source is not None else None for source in sources}
    if given <= {None}:
        return {}
    (first, *others) = given
    if others or first is None or first.lower() not in HUB_IDENTIFIERS:
        return dict(OTHER)
    return {"license": first.lower()}
