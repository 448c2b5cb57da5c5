{#  All meters of the last weeks, the most suspicious first: bounded by meters, and made anew as a whole. #}

{{ config(
    unique_key=['meter_id'],
    indexes=[{'columns': ['meter_id']}, {'columns': ['suspicion_rank']}],
    pre_hook="{{ replace_all(['meter_id']) }}"
) }}

with

suspicions as (

    select *
    from {{ source('ml', 'meter_suspicions') }}

),

features as (

    select *
    from {{ ref('int_meter_features') }}

),

inspections as (

    select
        *,
        row_number() over (partition by meter_id order by inspected_on desc) as recency
    from {{ ref('stg_inspections') }}

)

select
    suspicions.meter_id,
    cast(
        row_number() over (
            order by
                suspicions.suspicion_score desc,
                -- of equal suspicions, the one that costs more
                coalesce(suspicions.lost_kwh, 0) desc,
                suspicions.meter_id asc
        ) as bigint
    ) as suspicion_rank,
    suspicions.suspicion_score,
    suspicions.confidence,
    suspicions.reasons,
    suspicions.suspected_since,
    suspicions.lost_kwh,
    suspicions.lost_value,
    suspicions.currency,
    features.transformer_id,
    features.transformer_unexplained_share,
    features.customer_class,
    inspections.inspected_on as last_inspected_on,
    inspections.found_theft as last_found_theft,
    suspicions.suppressed_cause,
    suspicions.as_of_date,
    suspicions.model_version,
    suspicions.ranked_at
from suspicions
left join features on suspicions.meter_id = features.meter_id
left join inspections on suspicions.meter_id = inspections.meter_id and inspections.recency = 1
