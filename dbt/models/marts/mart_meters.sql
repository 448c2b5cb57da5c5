{#  The registry for analysts, as of now: bounded by meters, and made anew as a whole. #}

{{ config(
    unique_key=['meter_id'],
    indexes=[{'columns': ['meter_id']}],
    pre_hook="{{ replace_all(['meter_id']) }}"
) }}

with

meters as (

    select *
    from {{ ref('int_registered_meters') }}

),

nodes as (

    select
        *,
        row_number() over (partition by node_id order by valid_from desc) as recency
    from {{ ref('stg_network_nodes') }}

)

select
    meters.meter_id,
    meters.transformer_id,
    transformers.parent_id as feeder_id,
    meters.customer_class,
    meters.contracted_power_kw,
    meters.is_prepaid,
    meters.latitude,
    meters.longitude,
    meters.valid_from,
    meters.valid_to
from meters
left join nodes as transformers on meters.transformer_id = transformers.node_id and transformers.recency = 1
