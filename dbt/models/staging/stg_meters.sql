{{ config(
    unique_key=['meter_id'],
    indexes=[{'columns': ['meter_id', 'valid_from']}],
    pre_hook="{{ find_affected_registry('meters', 'meter_id') }}"
) }}

with

source as (

    select *
    from {{ source('raw_data', 'meters') }}

),

received as (

    select
        *,
        row_number() over (partition by meter_id, valid_from order by id desc) as recency
    from {{ affected_rows('source', ['meter_id']) }} as meters

),

latest as (

    select
        *,
        lead(valid_from) over (partition by meter_id order by valid_from) as next_valid_from
    from received
    where recency = 1

)

select
    ---------- ids
    meter_id,
    service_point_id,
    transformer_id,
    ---------- attributes
    customer_class,
    tariff_per_kwh,
    currency,
    contracted_power_kw,
    is_prepaid,
    latitude,
    longitude,
    ---------- validity
    valid_from,
    case when valid_to < next_valid_from then valid_to else coalesce(next_valid_from, valid_to) end as valid_to
from latest
