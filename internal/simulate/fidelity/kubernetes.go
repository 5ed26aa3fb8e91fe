// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

package fidelity

import (
	"context"
	"fmt"

	"github.com/go-logr/logr"
	appsv1 "k8s.io/api/apps/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/klog/v2"
	hpaconfigv1alpha1 "k8s.io/kube-controller-manager/config/v1alpha1"
	"k8s.io/kubernetes/pkg/controller/deployment"
	"k8s.io/kubernetes/pkg/controller/podautoscaler"
	hpaconfig "k8s.io/kubernetes/pkg/controller/podautoscaler/config/v1alpha1"
	"k8s.io/kubernetes/pkg/controller/replicaset"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/headgate/headgate/internal/simulate"
)

// Kubernetes are the controllers of Kubernetes, at work in one simulated world after the other. They ask for the time as
// everybody does; in the bubble of a synctest, where they must be used, it is the world's.
type Kubernetes struct {
	deployments, replicaSets *seat

	deployment *deployment.DeploymentController
	replicaSet *replicaset.ReplicaSetController
	hpa        hpaconfigv1alpha1.HPAControllerConfiguration
}

// New makes them; they end with the context. To be called outside of a bubble, for they have goroutines of their own, which
// have nothing to do.
func New(ctx context.Context) (*Kubernetes, error) {
	ctx = klog.NewContext(ctx, logr.Discard())
	k := &Kubernetes{deployments: newSeat(), replicaSets: newSeat()}
	hpaconfig.RecommendedDefaultHPAControllerConfiguration(&k.hpa)
	var err error
	d := k.deployments
	k.deployment, err = deployment.NewDeploymentController(ctx, d.informers.Apps().V1().Deployments(), d.informers.Apps().V1().ReplicaSets(),
		d.informers.Core().V1().Pods(), d.client)
	if err != nil {
		return nil, fmt.Errorf("the Deployment controller: %w", err)
	}
	r := k.replicaSets
	k.replicaSet = replicaset.NewReplicaSetController(ctx, r.informers.Apps().V1().ReplicaSets(), sortedPods{r.informers.Core().V1().Pods()}, r.client,
		replicaset.BurstReplicas)
	return k, nil
}

// In lets them work in another world; it is an argument of simulate.Compare.
func (k *Kubernetes) In(deployments, replicaSets *simulate.Cluster) simulate.Controllers {
	k.deployments.cluster, k.replicaSets.cluster = deployments, replicaSets
	return k
}

// SyncDeployment implements simulate.Controllers.
func (k *Kubernetes) SyncDeployment(d *appsv1.Deployment) error {
	k.deployments.refresh()
	return syncDeployment(k.deployment, quietly(), client.ObjectKeyFromObject(d).String())
}

// SyncReplicaSet implements simulate.Controllers. The controller must not wait for the watch to tell it what it did itself,
// since its cache knows it already: a ReplicaSet that is gone is forgotten with all that was expected of it.
func (k *Kubernetes) SyncReplicaSet(rs *appsv1.ReplicaSet) error {
	key := client.ObjectKeyFromObject(rs).String()
	k.replicaSets.fill(nil)
	if err := syncReplicaSet(k.replicaSet, quietly(), key); err != nil {
		return err
	}
	k.replicaSets.refresh()
	return syncReplicaSet(k.replicaSet, quietly(), key)
}

// Replicas implements simulate.Controllers.
func (k *Kubernetes) Replicas(hpa *autoscalingv2.HorizontalPodAutoscaler, current int32, usage map[string]int64) (int32, error) {
	k.replicaSets.refresh()
	calculator := podautoscaler.NewReplicaCalculator(measured{usage: usage, now: k.replicaSets.cluster.Now()}, k.replicaSets.informers.Core().V1().Pods().Lister(),
		k.hpa.HorizontalPodAutoscalerCPUInitializationPeriod.Duration, k.hpa.HorizontalPodAutoscalerInitialReadinessDelay.Duration)
	source, t := hpa.Spec.Metrics[0].ContainerResource, k.hpa.HorizontalPodAutoscalerTolerance
	n, _, _, _, err := resourceReplicas(calculator, quietly(), current, *source.Target.AverageUtilization, source.Name, tolerances{t, t},
		hpa.Namespace, labels.Everything(), source.Container)
	if err != nil {
		return current, err
	}
	n, _, _ = limited(current, n, *hpa.Spec.MinReplicas, hpa.Spec.MaxReplicas)
	return n, nil
}

// quietly is a context without a logger.
func quietly() context.Context { return klog.NewContext(context.Background(), logr.Discard()) }
