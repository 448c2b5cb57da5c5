{%- set threshold = var('anomaly_type_z') %}

{{ config(
    unique_key=['meter_id', 'cast(reading_timestamp as date)'],
    indexes=[{'columns': ['meter_id', '(cast(reading_timestamp as date))']}],
    pre_hook="{{ find_affected_days(2 * var('history_days')) }}"
) }}

with

features as (

    select
        reading_id,
        meter_id,
        reading_timestamp,
        consumption_kwh,
        active_power_kw,
        hour_of_week_z_score,
        consumption_vs_avg_ratio,
        temperature_c
    from {{ rows_of_days(ref('int_consumption_features'), 'cast(reading_timestamp as date)', 'affected') }}

),

version_in_force as (

    {{ version_in_force() }}

),

scores as (

    select
        reading_id,
        anomaly_score,
        is_anomaly,
        model_version,
        scored_at
    from {{ rows_of_days(source('ml', 'reading_scores'), 'cast(reading_timestamp as date)', 'affected') }}
    where model_version = (select version_in_force.model_version from version_in_force)

)

select
    scores.reading_id,
    features.meter_id,
    features.reading_timestamp,
    features.consumption_kwh,
    features.active_power_kw,
    scores.anomaly_score,
    scores.is_anomaly,
    case
        when not scores.is_anomaly then null
        when features.hour_of_week_z_score >= {{ threshold }} then 'high_consumption'
        when features.hour_of_week_z_score <= -{{ threshold }} then 'low_consumption'
        else 'unusual_pattern'
    end as anomaly_type,
    features.hour_of_week_z_score,
    features.consumption_vs_avg_ratio,
    features.temperature_c,
    scores.model_version,
    scores.scored_at
from scores
inner join features on scores.reading_id = features.reading_id
