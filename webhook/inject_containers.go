// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

package webhook

import (
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/headgate/headgate/api/v1alpha1"
)

const (
	// proxyUser is the user and group of the sidecar. Nothing depends on the number but that it is not
	// root; it is no ordinary app's.
	proxyUser int64 = 1337
	// tokenSeconds is the life of the sidecar's token; the kubelet renews it at 80 %.
	tokenSeconds int64 = 3600
	// tokenMode lets the sidecar's user read the token, which is root's: the containers of an injected
	// pod never share one user (see tokensReadable). With an fsGroup the kubelet makes it 0640 and the
	// group's, and every container is in that group.
	tokenMode int32 = 0o644
	// logLevel is Envoy's.
	logLevel = "warning"
	// headgateBinary is named in full: hooks know no entrypoint.
	headgateBinary = "/usr/local/bin/headgate"
)

// isOwn tells Headgate's containers, by their reserved names.
func isOwn(c *corev1.Container) bool {
	return c.Name == v1alpha1.PrepareContainer || c.Name == v1alpha1.ProxyContainer
}

// addContainers puts the two init containers in front of all others, whatever was put there since an
// earlier call: the redirects must be there before a native sidecar of the app is probed through
// them, and what starts first ends last, so that Envoy outlives everything it serves.
func (in *injection) addContainers() Skip {
	resources, skip := ownResources(in.out, in.cfg)
	if skip.Skipped() {
		return skip
	}
	own := []corev1.Container{
		in.container(in.prepareContainer(resources)),
		in.container(in.proxyContainer(resources)),
	}
	others := slices.DeleteFunc(in.out.Spec.InitContainers, func(c corev1.Container) bool { return isOwn(&c) })
	in.out.Spec.InitContainers = append(own, others...)
	in.out.Spec.Volumes = upsert(in.out.Spec.Volumes, tokenVolume(), func(v corev1.Volume) string { return v.Name })
	return Skip{}
}

// container is what the pod gets for a container of Headgate's: the wanted one, or, at a second call
// for the same pod, the one that is there with everything set back that Headgate depends on. What is
// kept is what others rightly change: the image (mirrors), resources (autoscalers), additional
// environment and mounts (the API server's own token).
func (in *injection) container(want corev1.Container) corev1.Container {
	there := initContainer(in.pod, want.Name)
	if there == nil || !in.sameRevision() {
		return want
	}
	got := *there.DeepCopy()
	got.Command, got.Args = want.Command, want.Args
	got.RestartPolicy = want.RestartPolicy
	got.Ports = want.Ports
	got.StartupProbe, got.ReadinessProbe, got.LivenessProbe = want.StartupProbe, nil, nil
	got.Lifecycle = want.Lifecycle
	got.SecurityContext = want.SecurityContext
	got.TerminationMessagePolicy = want.TerminationMessagePolicy
	for _, e := range want.Env {
		got.Env = upsert(got.Env, e, func(e corev1.EnvVar) string { return e.Name })
	}
	for _, m := range want.VolumeMounts {
		got.VolumeMounts = upsert(got.VolumeMounts, m, func(m corev1.VolumeMount) string { return m.MountPath })
	}
	return got
}

// upsert replaces the element with the same key, or appends.
func upsert[T any](list []T, e T, key func(T) string) []T {
	if i := slices.IndexFunc(list, func(x T) bool { return key(x) == key(e) }); i >= 0 {
		list[i] = e
		return list
	}
	return append(list, e)
}

func (in *injection) prepareContainer(resources corev1.ResourceRequirements) corev1.Container {
	return corev1.Container{
		Name:            v1alpha1.PrepareContainer,
		Image:           in.cfg.Image,
		ImagePullPolicy: in.cfg.PullPolicy,
		Command:         []string{headgateBinary},
		Args:            []string{"prepare"},
		Env:             []corev1.EnvVar{{Name: injectionEnv, Value: in.now.String()}},
		Resources:       *resources.DeepCopy(),
		SecurityContext: &corev1.SecurityContext{
			// Kubernetes has no ambient capabilities: only root has those that are added.
			RunAsUser:                new(int64(0)),
			RunAsGroup:               new(int64(0)),
			RunAsNonRoot:             new(false),
			Privileged:               new(false),
			AllowPrivilegeEscalation: new(false),
			ReadOnlyRootFilesystem:   new(true),
			Capabilities:             &corev1.Capabilities{Drop: []corev1.Capability{"ALL"}, Add: []corev1.Capability{"NET_ADMIN"}},
			SeccompProfile:           &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeRuntimeDefault},
		},
		TerminationMessagePolicy: corev1.TerminationMessageFallbackToLogsOnError,
	}
}

func (in *injection) proxyContainer(resources corev1.ResourceRequirements) corev1.Container {
	return corev1.Container{
		Name:            v1alpha1.ProxyContainer,
		Image:           in.cfg.Image,
		ImagePullPolicy: in.cfg.PullPolicy,
		Command:         []string{headgateBinary},
		Args:            []string{"run"},
		Env:             in.proxyEnvironment(),
		// A PodMonitor finds the statistics by this name. The port is not captured.
		Ports:         []corev1.ContainerPort{{Name: "headgate-stats", ContainerPort: v1alpha1.StatsPort, Protocol: corev1.ProtocolTCP}},
		Resources:     *resources.DeepCopy(),
		RestartPolicy: new(corev1.ContainerRestartPolicyAlways),
		VolumeMounts:  []corev1.VolumeMount{{Name: v1alpha1.TokenVolume, MountPath: v1alpha1.TokenMountPath, ReadOnly: true}},
		// App containers start when this succeeds: not before Envoy can take their requests. From then on the
		// container is ready for as long as it runs, without a readiness probe: a dead one is not at once, and an Envoy
		// that hangs is ended by its watchdog. A kubelet that starts anew takes a readiness probe of a native
		// sidecar for failed until it has asked (Kubernetes 1.36), and all pods of its node are out.
		StartupProbe: startupProbe(),
		// PreStop hooks of native sidecars run when the pod begins to end, beside those of the app
		// (KEP-753), so connections are drained while the app still serves.
		Lifecycle: &corev1.Lifecycle{PreStop: &corev1.LifecycleHandler{Exec: &corev1.ExecAction{Command: []string{headgateBinary, "drain"}}}},
		SecurityContext: &corev1.SecurityContext{
			RunAsUser:                new(proxyUser),
			RunAsGroup:               new(proxyUser),
			RunAsNonRoot:             new(true),
			Privileged:               new(false),
			AllowPrivilegeEscalation: new(false),
			ReadOnlyRootFilesystem:   new(true),
			Capabilities:             &corev1.Capabilities{Drop: []corev1.Capability{"ALL"}},
			SeccompProfile:           &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeRuntimeDefault},
		},
		TerminationMessagePolicy: corev1.TerminationMessageFallbackToLogsOnError,
	}
}

func (in *injection) proxyEnvironment() []corev1.EnvVar {
	field := func(name, path string) corev1.EnvVar {
		return corev1.EnvVar{Name: name, ValueFrom: &corev1.EnvVarSource{FieldRef: &corev1.ObjectFieldSelector{APIVersion: "v1", FieldPath: path}}}
	}
	return []corev1.EnvVar{
		field("POD_NAMESPACE", "metadata.namespace"),
		field("POD_NAME", "metadata.name"),
		field("POD_IPS", "status.podIPs"),
		{Name: injectionEnv, Value: in.now.String()},
		{Name: "HEADGATE_XDS_ADDRESS", Value: in.cfg.XDSAddress},
		{Name: "HEADGATE_XDS_NAME", Value: in.cfg.XDSName},
		{Name: "HEADGATE_CA", Value: in.cfg.CA},
		{Name: "HEADGATE_LOG_LEVEL", Value: logLevel},
	}
}

// startupProbe asks Envoy's readiness on its own port. Everything that the API would default is stated,
// so that a second call finds what the first one wrote. Two minutes are for nodes under stress; with or without the xDS
// server Envoy is there within seconds.
func startupProbe() *corev1.Probe {
	return &corev1.Probe{
		ProbeHandler: corev1.ProbeHandler{HTTPGet: &corev1.HTTPGetAction{
			Path: "/ready", Port: intstr.FromInt32(v1alpha1.StatsPort), Scheme: corev1.URISchemeHTTP,
		}},
		PeriodSeconds: 1, FailureThreshold: 120, TimeoutSeconds: 2, SuccessThreshold: 1,
	}
}

// tokenVolume is the only volume: an emptyDir would make `kubectl drain` refuse the node.
func tokenVolume() corev1.Volume {
	return corev1.Volume{
		Name: v1alpha1.TokenVolume,
		VolumeSource: corev1.VolumeSource{Projected: &corev1.ProjectedVolumeSource{
			DefaultMode: new(tokenMode),
			Sources: []corev1.VolumeProjection{{ServiceAccountToken: &corev1.ServiceAccountTokenProjection{
				Audience:          v1alpha1.TokenAudience,
				ExpirationSeconds: new(tokenSeconds),
				Path:              "token",
			}}},
		}},
	}
}
