// Rules and dashboards together, for those who use mixins: `local gapless = import 'config/mixin.libsonnet';`.
{
  prometheusAlerts+:: std.parseYaml(importstr 'prometheus/alerts.yml'),
  prometheusRules+:: std.parseYaml(importstr 'prometheus/slo.yml'),
  grafanaDashboards+:: {
    'gapless-delivery.json': import 'grafana/dashboards/gapless-delivery.json',
    'gapless-proof.json': import 'grafana/dashboards/gapless-proof.json',
    'gapless-provider-reads.json': import 'grafana/dashboards/gapless-provider-reads.json',
    'gapless-receiving.json': import 'grafana/dashboards/gapless-receiving.json',
  },
}
