{{ config(
    unique_key=['meter_id'],
    indexes=[{'columns': ['meter_id', 'inspected_on']}],
    pre_hook="{{ find_affected_registry('inspections', 'meter_id') }}"
) }}

with

source as (

    select *
    from {{ source('raw_data', 'inspections') }}

),

received as (

    select
        *,
        row_number() over (partition by meter_id, inspected_on order by id desc) as recency
    from {{ affected_rows('source', ['meter_id']) }} as inspections

)

select
    meter_id,
    inspected_on,
    found_theft,
    kind,
    recovered_kwh
from received
where recency = 1
