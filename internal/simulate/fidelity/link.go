// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

package fidelity

import (
	"context"
	"time"
	_ "unsafe" // for go:linkname

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/kubernetes/pkg/controller/deployment"
	"k8s.io/kubernetes/pkg/controller/podautoscaler"
	"k8s.io/kubernetes/pkg/controller/replicaset"
)

// Kubernetes does not export these. Nothing compares the types here with those there: who moves go.mod to another version of
// Kubernetes has to.

//go:linkname syncDeployment k8s.io/kubernetes/pkg/controller/deployment.(*DeploymentController).syncDeployment
func syncDeployment(c *deployment.DeploymentController, ctx context.Context, key string) error

//go:linkname syncReplicaSet k8s.io/kubernetes/pkg/controller/replicaset.(*ReplicaSetController).syncReplicaSet
func syncReplicaSet(c *replicaset.ReplicaSetController, ctx context.Context, key string) error

// tolerances is podautoscaler.Tolerances, whose fields only its package can set.
type tolerances struct{ down, up float64 }

//go:linkname resourceReplicas k8s.io/kubernetes/pkg/controller/podautoscaler.(*ReplicaCalculator).GetResourceReplicas
func resourceReplicas(c *podautoscaler.ReplicaCalculator, ctx context.Context, current, utilization int32, resource corev1.ResourceName,
	t tolerances, namespace string, selector labels.Selector, container string) (n, utilized int32, used int64, at time.Time, err error)

//go:linkname limited k8s.io/kubernetes/pkg/controller/podautoscaler.convertDesiredReplicasWithRules
func limited(current, desired, least, most int32) (n int32, reason, message string)
