// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

// Package tests renders the chart with Helm's own code and looks at what comes out.
//
// Each charts/headgate/testdata/NAME.in.yaml is a values file; NAME.out.yaml is what the chart makes of it.
// default.out.yaml is complete; every other one holds only the objects that differ from the default, and
// names those that are not there, so that it shows at a glance what a value does. The first comment lines
// of an input may say more than values can:
//
//	# api-versions: monitoring.coreos.com/v1/PodMonitor
//	# upgrade: true
//
// Written anew by: go test . -update
//
// It is a module of its own because Helm and the API server, whose code judges the result here, would
// otherwise be dependencies of Headgate.
package tests
