{{ config(
    unique_key=['meter_id'],
    indexes=[{'columns': ['meter_id']}],
    pre_hook="{{ replace_all(['meter_id']) }}"
) }}

with

latest as (

    select
        *,
        row_number() over (partition by meter_id order by valid_from desc) as recency
    from {{ ref('stg_meters') }}

),

meters as (

    select *
    from latest
    where recency = 1

),

-- a service point whose meter was replaced is one series of consumption, called by the meter that is there now
replacements as (

    select
        old_meters.meter_id,
        old_meters.valid_to as replaced_on,
        new_meters.meter_id as replaced_by,
        row_number() over (
            partition by old_meters.meter_id
            order by new_meters.valid_from desc, new_meters.meter_id asc
        ) as recency
    from meters as old_meters
    inner join meters as new_meters
        on
            old_meters.service_point_id = new_meters.service_point_id
            and old_meters.meter_id <> new_meters.meter_id
            and old_meters.valid_to <= new_meters.valid_from

),

installations as (

    select
        replaced_by as meter_id,
        max(replaced_on) as replacement_date
    from replacements
    where recency = 1
    group by 1

)

select
    meters.meter_id,
    meters.service_point_id,
    meters.transformer_id,
    meters.customer_class,
    meters.contracted_power_kw,
    {{ as_double('meters.tariff_per_kwh') }} as tariff_per_kwh,
    meters.currency,
    meters.is_prepaid,
    meters.latitude,
    meters.longitude,
    meters.valid_from,
    meters.valid_to,
    replacements.replaced_by,
    replacements.replaced_on,
    installations.replacement_date
from meters
left join replacements on meters.meter_id = replacements.meter_id and replacements.recency = 1
left join installations on meters.meter_id = installations.meter_id
