{%- set threshold = var('anomaly_type_z') %}

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
    from {{ ref('int_consumption_features') }}

),

scores as (

    select
        reading_id,
        anomaly_score,
        is_anomaly,
        model_version,
        scored_at
    from {{ source('ml', 'reading_scores') }}

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
