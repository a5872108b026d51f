"""Reads template.yaml: as written, as SAM expands it, and as CloudFormation resolves it for given parameters."""

import copy
import functools
import json
import os
import re
from pathlib import Path

import yaml
from samtranslator.translator.transform import transform
from samtranslator.yaml_helper import yaml_parse

ROOT = Path(__file__).resolve().parents[2]
REGION = "eu-central-1"
ACCOUNT = "111122223333"
PSEUDO = {
    "AWS::Region": REGION,
    "AWS::AccountId": ACCOUNT,
    "AWS::Partition": "aws",
    "AWS::URLSuffix": "amazonaws.com",
    "AWS::StackName": "rekindle",
    "AWS::StackId": f"arn:aws:cloudformation:{REGION}:{ACCOUNT}:stack/rekindle/00000000",
}
# The only parameter without a default.
BUCKET = {"BackupBucketName": "rekindle-backups"}
NODE = {
    "VpcId": "vpc-0123456789abcdef0",
    "NodeSubnets": "subnet-0123456789abcdef0,subnet-0123456789abcdef1",
    "BalancerSubnets": "subnet-0123456789abcdef2,subnet-0123456789abcdef3",
}
OPTIONS = {
    "KmsKeyArn": f"arn:aws:kms:{REGION}:{ACCOUNT}:key/11111111-2222-3333-4444-555555555555",
    "BulkDataBucketName": "rekindle-bulk-data",
}
_NO_VALUE = object()
_VARIABLE = re.compile(r"\$\{(!?)([A-Za-z0-9:.]+)\}")


class Template:
    """A text of template.yaml, possibly with a defect."""

    def __init__(self, text):
        self.text = text
        self.raw = yaml_parse(text)

    @classmethod
    def shipped(cls):
        return cls((ROOT / "template.yaml").read_text())

    def with_defect(self, before, after):
        """Returns the template with `before` replaced by `after`. `before` must occur exactly once."""
        assert self.text.count(before) == 1, f"template.yaml contains {before!r} {self.text.count(before)} times, not once"
        return Template(self.text.replace(before, after))

    @functools.cached_property
    def expanded(self):
        """The result of the SAM transform for the default parameters."""
        return self.expand({})

    def expand(self, parameters):
        """Returns the result of the SAM transform, without network. Placeholders replace the artifacts of `sam build`.

        The transform itself looks up some parameters in mappings, so the result is valid only for these parameters.
        """
        os.environ.setdefault("AWS_DEFAULT_REGION", REGION)
        template = copy.deepcopy(self.raw)
        for resource in template["Resources"].values():
            for place in {"CodeUri", "ContentUri"} & resource.get("Properties", {}).keys():
                resource["Properties"][place] = "s3://artifacts/key"

        class NoManagedPolicies:
            def load(self):
                return {}

        # The transform modifies its input, so the result is copied.
        return json.loads(json.dumps(transform(template, {**BUCKET, **parameters}, NoManagedPolicies())))

    def resolved(self, **parameters):
        """Returns the template as CloudFormation resolves it: existing resources only, intrinsic functions evaluated."""
        return Resolution(self.expanded, {**BUCKET, **NODE, **parameters})


class Resolution:
    """An expanded template with its intrinsic functions evaluated for one set of parameters."""

    def __init__(self, template, parameters):
        self.template = template
        self.values = {}
        for name, declared in template["Parameters"].items():
            value = parameters.get(name, declared.get("Default"))
            assert value is not None, f"the parameter {name} has neither a value nor a default"
            self.values[name] = str(value)
        self.resources = {
            name: self.value(resource)
            for name, resource in template["Resources"].items()
            if self.holds(resource.get("Condition"))
        }

    def of_type(self, kind):
        return {name: r["Properties"] for name, r in self.resources.items() if r["Type"] == kind}

    def holds(self, condition):
        return condition is None or self.value(self.template["Conditions"][condition])

    def refusals(self):
        """Returns the descriptions of all assertions in Rules that these parameters violate."""
        return [
            assertion["AssertDescription"]
            for rule in self.template["Rules"].values()
            if "RuleCondition" not in rule or self.value(rule["RuleCondition"])
            for assertion in rule["Assertions"]
            if not self.value(assertion["Assert"])
        ]

    def reference(self, name):
        if name == "AWS::NoValue":
            return _NO_VALUE
        if name in PSEUDO:
            return PSEUDO[name]
        if name in self.values:
            return self.values[name]
        assert name in self.template["Resources"], f"undefined reference {name}"
        resource = self.template["Resources"][name]
        # Ref of a document returns its name.
        return self.value(resource["Properties"].get("Name", name)) if resource["Type"] == "AWS::SSM::Document" else name

    def attribute(self, path):
        name, _, attribute = path.partition(".")
        assert name in self.template["Resources"], f"undefined reference {name}"
        resource = self.template["Resources"][name]
        if attribute != "Arn":
            return path
        if resource["Type"] == "AWS::S3::Bucket":
            return f"arn:aws:s3:::{self.value(resource['Properties']['BucketName'])}"
        if resource["Type"] == "AWS::Logs::LogGroup":
            return f"arn:aws:logs:{REGION}:{ACCOUNT}:log-group:{self.value(resource['Properties']['LogGroupName'])}:*"
        service = resource["Type"].split("::")[1].lower()
        return f"arn:aws:{service}:{REGION}:{ACCOUNT}:{name}"

    def value(self, node):
        if isinstance(node, list):
            values = [self.value(item) for item in node]
            return [value for value in values if value is not _NO_VALUE]
        if not isinstance(node, dict):
            return node
        if len(node) == 1:
            [(key, argument)] = node.items()
            function = getattr(self, "_" + key.replace("Fn::", "").lower(), None)
            if key == "Ref":
                return self.reference(argument)
            if key == "Condition" and isinstance(argument, str):
                return self.holds(argument)
            if key.startswith("Fn::"):
                assert function, f"the tests do not implement {key}"
                return function(argument)
        values = {key: self.value(item) for key, item in node.items()}
        return {key: value for key, value in values.items() if value is not _NO_VALUE}

    def _if(self, argument):
        condition, yes, no = argument
        return self.value(yes if self.holds(condition) else no)

    def _equals(self, argument):
        left, right = (self.value(side) for side in argument)
        return str(left) == str(right)

    def _not(self, argument):
        return not self.value(argument[0])

    def _and(self, argument):
        return all(self.value(item) for item in argument)

    def _or(self, argument):
        return any(self.value(item) for item in argument)

    def _contains(self, argument):
        choices, value = self.value(argument)
        return value in choices

    def _join(self, argument):
        separator, parts = argument
        return separator.join(str(part) for part in self.value(parts))

    def _split(self, argument):
        separator, text = self.value(argument)
        return text.split(separator)

    def _base64(self, argument):
        return self.value(argument)

    def _getatt(self, argument):
        return self.attribute(argument if isinstance(argument, str) else ".".join(argument))

    def _findinmap(self, argument):
        name, first, second = self.value(argument)
        return self.template["Mappings"][name][str(first)][second]

    def _sub(self, argument):
        text, own = argument if isinstance(argument, list) else (argument, {})
        own = self.value(own)

        def replace(match):
            escaped, name = match.groups()
            if escaped:
                return "${" + name + "}"
            if name in own:
                return str(own[name])
            return str(self.attribute(name) if "." in name else self.reference(name))

        return _VARIABLE.sub(replace, text)


def load_yaml(name):
    return yaml.safe_load((Path(__file__).parent / name).read_text())
