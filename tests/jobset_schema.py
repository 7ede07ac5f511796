"""The published schema of JobSet, cut down to the fields that launch/gke/jobset.yaml uses, and a check against it.

    python tests/jobset_schema.py CRD.yaml COMMIT

CRD.yaml: config/components/crd/bases/jobset.x-k8s.io_jobsets.yaml of kubernetes-sigs/jobset. The manifest
is checked against all of it (0.8 MB); what it uses is written to tests/golden/jobset_schema.json, so that every test
run repeats the check without a network. A field that is not in there is refused, as the API server would.
"""

import json
import re
import sys
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[1]
MANIFEST = ROOT / "launch" / "gke" / "jobset.yaml"
GOLDEN = ROOT / "tests" / "golden" / "jobset_schema.json"
LIMITS = ("type", "enum", "required", "minimum", "maximum", "minLength", "maxLength", "pattern", "maxItems")
INT_OR_STRING, ANY_FIELD = "x-kubernetes-int-or-string", "x-kubernetes-preserve-unknown-fields"
TYPES = {"object": dict, "array": list, "string": str, "boolean": bool, "integer": int, "number": (int, float)}


def errors(value, schema, where=""):
    """What is wrong with a value, a sentence each. Rules in CEL (x-kubernetes-validations) are not evaluated."""
    wanted = (int, str) if schema.get(INT_OR_STRING) else TYPES[schema["type"]]
    if not isinstance(value, wanted) or (isinstance(value, bool) and wanted is not bool):
        return [f"{where}: expected {schema.get('type', 'a number or text')}, got {value!r}"]
    found = [f"{where}.{name}: missing" for name in schema.get("required", ()) if name not in value]
    if "enum" in schema and value not in schema["enum"]:
        found.append(f"{where}: expected one of {schema['enum']}, got {value!r}")
    if "pattern" in schema and isinstance(value, str) and not re.search(schema["pattern"], value):
        found.append(f"{where}: {value!r} does not match {schema['pattern']}")
    if isinstance(value, int) and not schema.get("minimum", value) <= value <= schema.get("maximum", value):
        found.append(f"{where}: {value} is outside of {schema.get('minimum')}..{schema.get('maximum')}")
    if isinstance(value, (str, list)):
        least, most = (schema.get(("minLength", "maxLength")[i], (0, len(value))[i]) for i in (0, 1))
        most = schema.get("maxItems", most)
        if not least <= len(value) <= most:
            found.append(f"{where}: length {len(value)} is outside of {least}..{most}")
    for name, part, place in inner(value, where):
        below = of_part(schema, name)
        if below is None:
            found.append(f"{place}: no such field")
        elif below:
            found += errors(part, below, place)
    return found


def inner(value, where):
    """(name, or None for an element of a list; value; where) of what is inside."""
    if isinstance(value, dict):
        return [(name, part, f"{where}.{name}") for name, part in value.items()]
    if isinstance(value, list):
        return [(None, part, f"{where}[{number}]") for number, part in enumerate(value)]
    return []


def of_part(schema, name):
    """The schema of a field (name None: of an element); {} where anything may stand; None where there is none."""
    if name is None:
        return schema["items"]
    if name in schema.get("properties", {}):
        return schema["properties"][name]
    if isinstance(schema.get("additionalProperties"), dict):
        return schema["additionalProperties"]
    is_free = schema.get(ANY_FIELD) or "properties" not in schema
    return {} if is_free else None


def cut(value, schema):
    """The schema without descriptions and without the fields that `value` does not use."""
    kept = {name: schema[name] for name in (*LIMITS, INT_OR_STRING, ANY_FIELD) if name in schema}
    for name, part, _ in inner(value, ""):
        below = of_part(schema, name)
        if not below:
            continue
        if name is None:
            kept["items"] = merged(kept.get("items", {}), cut(part, below))
        elif name in schema.get("properties", {}):
            kept.setdefault("properties", {})[name] = cut(part, below)
        else:
            kept["additionalProperties"] = cut(part, below)
    return kept


def merged(one, other):
    """Both lists' elements may use other fields."""
    both = {**one, **other}
    for name in set(one) & set(other):
        if isinstance(one[name], dict):
            both[name] = merged(one[name], other[name])
    return both


def main():
    crd, commit = sys.argv[1:]
    (version,) = (v for v in yaml.safe_load(Path(crd).read_text())["spec"]["versions"] if v["name"] == "v1alpha2")
    schema, manifest = version["schema"]["openAPIV3Schema"], yaml.safe_load(MANIFEST.read_text())
    wrong = errors(manifest, schema)
    if wrong:
        sys.exit("\n".join(wrong))
    source = f"kubernetes-sigs/jobset at {commit}, config/components/crd/bases/jobset.x-k8s.io_jobsets.yaml"
    GOLDEN.write_text(json.dumps({"source": source, "schema": cut(manifest, schema)}, indent=1, sort_keys=True) + "\n")
    print(f"{MANIFEST.name} is valid against {source}; wrote {GOLDEN} ({GOLDEN.stat().st_size} bytes)")


if __name__ == "__main__":
    main()
