#!/usr/bin/env bash
# SPDX-FileCopyrightText: The Headgate Authors
# SPDX-License-Identifier: Apache-2.0

# Writes versions/MINOR.mod and .sum, from which the program is built for another version of Kubernetes than that of
# go.mod. internal/build/versions.go lists it then.
#
#   e2e/cluster/kubernetes/versions.sh v1.30.14
set -euo pipefail
cd "$(dirname "$0")"
export GOWORK=off GOFLAGS=

version=$1
staging=v0.${version#v1.}
minor=${version%.*}
file=versions/${minor#v}.mod

upstream=$(go mod download -json "k8s.io/kubernetes@$version" | sed -n 's/^\t"GoMod": "\(.*\)",$/\1/p')
required() { awk -v module="$1" '$1 == module {print $2; exit}' "$upstream"; }

# The versions of what Kubernetes shares with this program are its own.
mkdir -p versions
cat >"$file" <<END
module github.com/headgate/headgate/e2e/cluster/kubernetes

go $(awk '$1 == "go" {print $2}' "$upstream")

require (
	github.com/spf13/cobra $(required github.com/spf13/cobra)
	go.etcd.io/etcd/server/v3 $(required go.etcd.io/etcd/client/v3)
	k8s.io/component-base $staging
	k8s.io/kubectl $staging
	k8s.io/kubernetes $version
)

replace (
$(awk -v version="$staging" '$2 == "=>" && $3 ~ /^\.\/staging\// {print "\t" $1 " => " $1 " " version}' "$upstream")
)
END
rm -f "${file%.mod}.sum"
go mod tidy -modfile "$file"
